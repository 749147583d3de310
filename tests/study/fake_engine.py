"""Engines without training: cells are settled by writing what a run of a known accuracy would leave."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rlvr_lite.study.design import Cell
from rlvr_lite.study.lease import lease
from rlvr_lite.study.store import Store
from tests.study.fake import write

#: Accuracy that a method reaches at its best learning rate, and that rate.
METHODS = {"lora": (0.6, 2e-3), "dora": (0.7, 3e-3), "miss": (0.6, 1e-3), "ln_tuning": (0.2, 1e-1), "vera": (0.5, 1e-1)}


def truth(cell: Cell) -> float:
    """The accuracy of a cell's policy."""
    if cell.stage == "base":
        return 0.2
    best, rate = METHODS[cell.config.method]
    distance = abs(math.log10((cell.config.learning_rate or rate) / rate))
    return best * max(0.0, 1 - distance / 2)


def settle(root: Path, cell: Cell) -> None:
    """Write what a finished cell leaves."""
    write(Store(root), cell, truth(cell))


class FakeEngine:
    """Settles cells at once, and keeps count of them.

    Args:
        root: of the study.
        capacity: cells under way at once.
        work: what settles a cell; may raise, as a worker would be lost.
    """

    def __init__(self, root: Path, capacity: int = 1, work: Callable[[Path, Cell], None] = settle):
        self.root, self.capacity, self.work = root, capacity, work
        self.done: list[str] = []
        self._flying: list[Cell] = []

    def submit(self, cell: Cell) -> None:
        assert len(self._flying) < self.capacity
        self._flying.append(cell)

    def finished(self) -> tuple[Cell, bool, str]:
        cell = self._flying.pop()  # out of order, as several workers would
        store = Store(self.root)
        with lease(store.lease(cell)) as mine:
            if not mine:
                return cell, False, ""
            if store.state(cell) == "open":
                self.done.append(cell.key)
                self.work(self.root, cell)
        return cell, True, ""


@contextmanager
def opened(engine: FakeEngine) -> Iterator[FakeEngine]:
    """In the shape of ``engines.engine``."""
    yield engine


def die_once(root: Path, cell: Cell, device: str | None = None) -> bool:
    """A worker that is killed the first time it takes a cell, and does it the second time."""
    mark = root / f".tried-{cell.config.seed}-{cell.stage}-{cell.config.method}"
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    settle(root, cell)
    return True


def die_always(root: Path, cell: Cell, device: str | None = None) -> bool:
    """A worker that no machine has room for."""
    if cell.config.method == "dora" and cell.stage != "base":
        os.kill(os.getpid(), signal.SIGKILL)
    settle(root, cell)
    return True
