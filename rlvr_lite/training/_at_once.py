"""How many completions are sampled together, remembered in the run's folder once more of them did not fit."""

from __future__ import annotations

from pathlib import Path

from rlvr_lite.records import read_json, write_json

__all__ = ["CompletionsAtOnce"]


class CompletionsAtOnce:
    """The most completions that are sampled together.

    Args:
        planned: what the memory plan says; ``None`` for all of a generation batch.
        path: a JSON file that keeps a smaller number, for a run that is resumed; ``None`` keeps it in memory.

    Attributes:
        rows: as it stands; ``None`` for all.
    """

    def __init__(self, planned: int | None, path: Path | None):
        self.rows, self._path = planned, path
        if path is not None and path.exists():
            kept = int(read_json(path)["completions_at_once"])
            self.rows = kept if planned is None else min(kept, planned)

    def lower(self, rows: int) -> None:
        """More than ``rows`` did not fit."""
        self.rows = rows
        if self._path is not None:
            write_json(self._path, {"completions_at_once": rows})
