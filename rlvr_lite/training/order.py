"""Which prompts a step sees: a pure function of (seed, window), so that nothing about data needs saving."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection
from functools import lru_cache

import torch
from torch.utils.data import Dataset

__all__ = ["Tickets", "number_key", "refill", "window_prompts"]


def number_key(*parts: object) -> int:
    """A 56-bit number that depends on all parts and on nothing else (not on the process or its hash seed)."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=7).digest(), "big")


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, size: int) -> list[int]:
    return random.Random(number_key(seed, "order", epoch)).sample(range(size), size)


def window_prompts(seed: int, window: int, count: int, size: int, *, shuffle: bool) -> list[int]:
    """Indices of the prompts of a window, when the data set is walked through epoch after epoch.

    Args:
        seed: of the run.
        window: number of the window, from 0.
        count: prompts a window.
        size: rows of the data set.
        shuffle: a new permutation in each epoch; otherwise in the order of the data set.

    Returns:
        ``count`` indices in ``range(size)``.

    >>> window_prompts(0, 1, 3, 4, shuffle=False)
    [3, 0, 1]
    """
    places = [divmod(window * count + i, size) for i in range(count)]
    return [_permutation(seed, epoch, size)[i] if shuffle else i for epoch, i in places]


def refill(seed: int, window: int, attempt: int, count: int, size: int, used: Collection[int]) -> list[int]:
    """Up to ``count`` prompts that the window has not seen, drawn for dynamic sampling.

    The draw depends on the window and the attempt, not on the run's history. A data set with no unused prompt left
    gives fewer, or none.
    """
    taken = set(used)
    fresh = [
        i
        for i in random.Random(number_key(seed, "refill", window, attempt)).sample(range(size), size)
        if i not in taken
    ]
    return fresh[:count]


class Tickets(Dataset[int]):
    """Stands in for the data set in the training loop of transformers: one number a micro-step, content unused."""

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index

    @staticmethod
    def collate(tickets: list[int]) -> dict[str, torch.Tensor]:
        """A batch as the loop wants it."""
        return {"ticket": torch.tensor(tickets)}
