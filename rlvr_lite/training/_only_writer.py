"""The processes of one run, alone in its directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from rlvr_lite.errors import UserError
from rlvr_lite.runs import RunDirectory, sweep, writer
from rlvr_lite.training._parallel import Processes

__all__ = ["only_writer"]


@contextmanager
def only_writer(files: RunDirectory, processes: Processes, wait: bool) -> Iterator[None]:
    """The processes of this run are the only ones that write in its directory, and none that died left anything."""
    with ExitStack() as stack:
        refused: UserError | None = None
        if processes.main:
            try:
                stack.enter_context(writer(files.lock, "training", wait=wait, step=files.steps))
                sweep(files.root, files.checkpoints, files.evaluations)
            except UserError as error:
                refused = error
        refused = processes.gather(refused)[0]
        if refused is not None:
            raise refused
        yield
