"""Test the paper's claims."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rlvr_lite.commands._consent import consent, refuse_card

__all__ = ["claims"]


def claims(
    scale: Literal["tiny", "small", "paper"] = "tiny",
    *,
    only: tuple[str, ...] | None = None,
    engine: Literal["local", "process", "ray"] = "process",
    workers: int | None = None,
    out: Path | None = None,
    dry: bool = False,
    gpu: str | None = None,
    yes: bool = False,
    progress: bool = True,
) -> None:
    """Test the claims of arXiv 2512.23165: seen, not seen or undecided at this scale, with effect and interval.

    Args:
        scale: tiny takes a few hours of one core; the others are the same experiments on larger bases.
        only: ids of claims, separated by commas or spaces; by default all.
        engine: one run after another here, in fresh processes, or on a Ray cluster.
        workers: runs at once; by default one a GPU, or two without.
        out: directory of the studies and of claims.json and claims.md. Calling again continues.
        dry: print runs, generated tokens, hours and disk, and train nothing.
        gpu: with --dry, the card that hours are given for; by default this machine's device.
        yes: start what takes more than an hour without being asked.
        progress: show progress bars; -q shows none.
    """
    from rlvr_lite.paper import claims as run_claims
    from rlvr_lite.paper import estimate
    from rlvr_lite.study import check_workers

    refuse_card(gpu, dry)
    check_workers(engine, workers)
    left = estimate(scale, out=out, only=only, gpu=gpu)
    if dry:
        print(left)
        return
    consent(left, yes)
    found = run_claims(scale, out=out, only=only, engine=engine, workers=workers, progress=progress)
    print(found)
    print(f"written to {found.directory / 'claims.md'} and claims.json")
