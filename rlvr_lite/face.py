"""What the package opens from disk, whatever it is."""

from __future__ import annotations

from pathlib import Path

from rlvr_lite.errors import UserError
from rlvr_lite.training import Run

__all__ = ["load"]


def load(directory: str | Path) -> Run:
    """What a directory holds.

    Args:
        directory: of a run.

    Raises:
        UserError: it does not exist, or holds nothing that this package wrote.
    """
    path = Path(directory)
    if not path.is_dir():
        raise UserError(f"{path} does not exist: give the directory of a run")
    return Run.load(path)
