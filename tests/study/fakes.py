"""Studies without training: cells are settled by writing the files that a run of a known accuracy would leave."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlvr_lite.config import to_json
from rlvr_lite.records import write_json, write_text
from rlvr_lite.study.design import Cell
from rlvr_lite.study.lease import lease
from rlvr_lite.study.store import Store

#: Accuracy that a method reaches at its best learning rate, and that rate.
METHODS = {"lora": (0.6, 2e-3), "dora": (0.7, 3e-3), "miss": (0.6, 1e-3), "ln_tuning": (0.4, 1e-1), "vera": (0.5, 1e-1)}


def truth(cell: Cell) -> float:
    """The accuracy of a cell's policy."""
    if cell.stage == "base":
        return 0.2
    best, rate = METHODS[cell.config.method]
    distance = abs(math.log10((cell.config.learning_rate or rate) / rate))
    return best * max(0.0, 1 - distance / 2)


def settle(root: Path, cell: Cell, accuracy: Callable[[Cell], float] = truth) -> None:
    """Write what a finished cell leaves."""
    folder = Store(root).path(cell)
    when = "before" if cell.stage == "base" else "after"
    (folder / "eval").mkdir(parents=True, exist_ok=True)
    right = accuracy(cell)
    rng = random.Random(f"{cell.key}")
    rows = []
    for i in range(cell.config.eval_problems):
        hardness = random.Random(f"problem {i}").uniform(-0.2, 0.2)
        for index in range(-1, cell.config.eval_k):
            correct = rng.random() < min(1.0, max(0.0, right + hardness))
            row = {"id": f"p{i:03d}", "index": index, "completion": "x", "extracted": "1", "correct": correct}
            rows.append(row | {"how": "exact", "tokens": 7, "truncated": False})
    write_text(folder / "eval" / f"{when}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    if cell.stage == "base":
        write_json(folder / "summary.json", {"status": "done", "reason": ""})
        return
    steps = cell.config.steps or 1
    write_text(folder / "config.json", to_json(dataclasses.replace(cell.config, rank=16, alpha=32.0)))
    metrics = [
        {"step": n + 1, "reward": 0.2 + (right - 0.2) * (n + 1) / steps, "tokens/sampled": 100} for n in range(steps)
    ]
    write_text(folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in metrics))
    (folder / "adapter").mkdir(exist_ok=True)
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"0" * 1000)
    summary: dict[str, Any] = {"status": "done", "reason": "", "method": cell.config.method, "seed": cell.config.seed}
    summary |= {"steps": steps, "trainable_parameters": 1000 * len(cell.config.method), "peak_memory_bytes": 2**28}
    summary |= {"identity": "proven", "parity": 1e-7, "seconds": {"load": 0.1, "train": 1.5 * steps, "step": 1.5}}
    summary |= {"learning_rate": cell.config.learning_rate, "versions": {"torch": "2.13.0"}}
    write_json(folder / "summary.json", summary)


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
