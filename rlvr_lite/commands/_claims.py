"""Test the paper's claims."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

__all__ = ["claims"]


def claims(
    scale: Literal["tiny", "small", "paper"] = "tiny",
    *,
    only: tuple[str, ...] | None = None,
    engine: Literal["local", "process", "ray"] = "process",
    workers: int | None = None,
    out: Path | None = None,
    progress: bool = True,
) -> None:
    """Test the claims of arXiv 2512.23165: supported, not supported or undecided, with effect and interval.

    Args:
        scale: tiny takes under 90 minutes on two cores; the others are the same experiments on larger bases.
        only: ids of claims, separated by commas or spaces; by default all.
        engine: one run after another here, in fresh processes, or on a Ray cluster.
        workers: runs at once; by default one a GPU, or two without.
        out: directory of the studies and of claims.json and claims.md. Calling again continues.
        progress: show progress bars; -q shows none.
    """
    from rlvr_lite.paper import claims as run_claims

    found = run_claims(scale, out=out, only=only, engine=engine, workers=workers, progress=progress)
    print(found)
    print(f"written to {found.directory / 'claims.md'} and claims.json")
