"""Engines without training: trials are settled by writing what a run of a known accuracy would leave."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rlvr_lite.study import Trial
from rlvr_lite.study._lease import lease
from rlvr_lite.study._store import Store
from tests.study.fake import write

#: Accuracy that a method reaches at its best learning rate, and that rate.
METHODS = {"lora": (0.6, 2e-3), "dora": (0.7, 3e-3), "miss": (0.6, 1e-3), "ln_tuning": (0.2, 1e-1), "vera": (0.5, 1e-1)}


def truth(trial: Trial) -> float:
    """The accuracy of a trial's policy."""
    if trial.stage == "base":
        return 0.2
    best, rate = METHODS.get(trial.config.method, METHODS["lora"])
    distance = abs(math.log10((trial.config.learning_rate or rate) / rate))
    return best * max(0.0, 1 - distance / 2)


def settle(root: Path, trial: Trial) -> None:
    """Write what a finished trial leaves."""
    write(Store(root), trial, truth(trial))


class FakeEngine:
    """Settles trials at once, and keeps count of them.

    Args:
        root: of the study.
        capacity: trials under way at once.
        work: what settles a trial; may raise, as a worker would be lost.
    """

    def __init__(self, root: Path, capacity: int = 1, work: Callable[[Path, Trial], None] = settle):
        self.root, self.capacity, self.work = root, capacity, work
        self.done: list[str] = []
        self._flying: list[Trial] = []

    def submit(self, trial: Trial) -> None:
        assert len(self._flying) < self.capacity
        self._flying.append(trial)

    def finished(self) -> tuple[Trial, bool, str]:
        trial = self._flying.pop()  # out of order, as several workers would
        store = Store(self.root)
        with lease(store.lease(trial)) as mine:
            if not mine:
                return trial, False, ""
            if store.state(trial) == "open":
                self.done.append(trial.key)
                self.work(self.root, trial)
        return trial, True, ""


@contextmanager
def opened(engine: FakeEngine) -> Iterator[FakeEngine]:
    """In the shape of ``engines.engine``."""
    yield engine


def die_once(root: Path, trial: Trial, *_: object) -> bool:
    """A worker that is killed the first time it takes a trial, and does it the second time."""
    mark = root / f".tried-{trial.config.seed}-{trial.stage}-{trial.config.method}"
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    settle(root, trial)
    return True


def die_always(root: Path, trial: Trial, *_: object) -> bool:
    """A worker that no machine has room for."""
    if trial.config.method == "dora" and trial.stage != "base":
        os.kill(os.getpid(), signal.SIGKILL)
    settle(root, trial)
    return True


def note_environment(root: Path, trial: Trial, *_: object) -> bool:
    """A worker that leaves the value of COLOUR in a file."""
    (root / f".colour-{trial.stage}-{trial.config.method}").write_text(os.environ.get("COLOUR", ""))
    settle(root, trial)
    return True
