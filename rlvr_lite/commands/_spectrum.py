"""Where an update went."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

__all__ = ["spectrum"]


def spectrum(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional],
    *,
    cache: Path | None = None,
    plot: Path | None = None,
) -> None:
    """Where in the spectrum of the base weights did training go?

    Args:
        runs: directories of runs on the same base.
        cache: directory that keeps the base's decompositions, for the next call.
        plot: write the plots to this picture.
    """
    from rlvr_lite.api import spectrum as measure

    found = measure(list(runs), cache=cache)
    print(found)
    if plot is not None:
        found.plot().savefig(plot, dpi=120)
        print(f"wrote {plot}")
