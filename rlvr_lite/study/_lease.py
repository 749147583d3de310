"""A lease on a piece of work: one holder at a time, and what a dead holder held is free again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rlvr_lite.runs import Busy, writer

__all__ = ["lease"]


@contextmanager
def lease(path: Path) -> Iterator[bool]:
    """Hold ``path`` while inside; yields whether it could be had.

    A holder that is stopped or asleep keeps it, one whose process is gone does not; see ``rlvr_lite.runs.writer``.

    Args:
        path: of the lock file.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(writer(path, "a trial"))
        except Busy:
            yield False
            return
        yield True
