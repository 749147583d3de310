"""Test the paper's claims."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

__all__ = ["claims"]


def claims(
    *,
    scale: Literal["tiny", "small", "paper"] = "tiny",
    only: str | None = None,
    engine: Literal["local", "process", "ray"] = "process",
    workers: int | None = None,
    out: Path | None = None,
    quiet: bool = False,
) -> None:
    """Test the claims of arXiv 2512.23165: supported, not supported or undecided, with effect and interval.

    Args:
        scale: tiny takes under 90 minutes on two cores; the others are the same experiments on larger bases.
        only: ids of claims, separated by commas; by default all.
        engine: one run after another here, in fresh processes, or on a Ray cluster.
        workers: runs at once; by default one a GPU, or two without.
        out: directory of the studies and of claims.json and claims.md. Calling again continues.
        quiet: no progress bars.
    """
    from rlvr_lite.paper import claims as run_claims

    ids = [id.strip() for id in only.split(",") if id.strip()] if only else None
    found = run_claims(scale, out=out, only=ids, engine=engine, workers=workers, progress=not quiet)
    print(found)
    print(f"written to {found.directory / 'claims.md'} and claims.json")
