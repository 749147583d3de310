"""The processes of one run, alone in its directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from rlvr_lite.errors import UserError
from rlvr_lite.runs import RunDirectory, sweep, writer
from rlvr_lite.training._parallel import Processes

__all__ = ["alone_in", "only_writer"]


@contextmanager
def only_writer(files: RunDirectory, processes: Processes, wait: bool) -> Iterator[None]:
    """The processes of this run are the only ones that write in its directory, and none that died left anything."""
    with _held(processes, lambda: writer(files.lock, "training", wait=wait, step=files.steps)):
        if processes.main:
            sweep(files.root, files.checkpoints, files.evaluations)
        yield


@contextmanager
def alone_in(output_dir: Path, processes: Processes) -> Iterator[None]:
    """The same for a trainer and its ``output_dir``; what begins with ``_`` there is not pushed to the Hub."""
    with _held(processes, lambda: writer(output_dir / "_lock", "training", folder="output_dir")):
        yield


@contextmanager
def _held(processes: Processes, lock: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """The main process holds the lock, or all are told why not."""
    with ExitStack() as stack:
        refused: UserError | None = None
        if processes.main:
            try:
                stack.enter_context(lock())
            except UserError as error:
                refused = error
        refused = processes.gather(refused)[0]
        if refused is not None:
            raise refused
        yield
