"""Check the machine."""

from __future__ import annotations

from typing import Annotated

import tyro

__all__ = ["doctor"]


def doctor(
    only: Annotated[tuple[str, ...], tyro.conf.Positional] = (), *, json: bool = False, progress: bool = True
) -> str:
    """Check this machine, GPU or not: are the numbers right, does it resume, how fast is it. Some two minutes, offline.

    Exit status 1 if a check failed.

    Args:
        only: names of checks, or how they begin; by default all of them.
        json: print JSON instead of the table.
        progress: show a progress bar; -q shows none.
    """
    from rlvr_lite.diagnostics import doctor as check_up

    found = check_up(only=only, progress=progress)
    print(found.to_json() if json else found, end="" if json else "\n")
    return "done" if found.passed else "failed"
