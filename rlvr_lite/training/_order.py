"""Which prompts a step sees: a pure function of (seed, generation batch), so that nothing about data needs saving."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection
from functools import lru_cache

import torch
from torch.utils.data import Dataset

__all__ = ["PromptOrder", "generation_prompts", "number_key", "refill"]


def number_key(*parts: object) -> int:
    """A 56-bit number that depends on all parts and on nothing else (not on the process or its hash seed)."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=7).digest(), "big")


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, size: int) -> list[int]:
    return random.Random(number_key(seed, "order", epoch)).sample(range(size), size)


def generation_prompts(seed: int, number: int, count: int, size: int, *, shuffle: bool) -> list[int]:
    """Indices of the prompts of a generation batch, when the data set is walked through epoch after epoch.

    Args:
        seed: of the run.
        number: of the generation batch, from 0.
        count: prompts a generation batch.
        size: rows of the data set.
        shuffle: a new permutation in each epoch; otherwise in the order of the data set.

    Returns:
        ``count`` indices in ``range(size)``.

    >>> generation_prompts(0, 1, 3, 4, shuffle=False)
    [3, 0, 1]
    """
    places = [divmod(number * count + i, size) for i in range(count)]
    return [_permutation(seed, epoch, size)[i] if shuffle else i for epoch, i in places]


def refill(seed: int, number: int, attempt: int, count: int, size: int, used: Collection[int]) -> list[int]:
    """Up to ``count`` prompts that the generation batch has not seen, drawn for dynamic sampling.

    The draw depends on the generation batch and the attempt, not on the run's history. A data set with no unused prompt left
    gives fewer, or none.
    """
    taken = set(used)
    fresh = [
        i
        for i in random.Random(number_key(seed, "refill", number, attempt)).sample(range(size), size)
        if i not in taken
    ]
    return fresh[:count]


class PromptOrder(Dataset[int]):
    """Stands in for the data set in the training loop of transformers: one number a micro-step, content unused."""

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index

    @staticmethod
    def collate(numbers: list[int]) -> dict[str, torch.Tensor]:
        """A batch as the loop wants it."""
        return {"micro_step": torch.tensor(numbers)}
