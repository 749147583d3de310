"""Tasks of reasoning-gym, by name (extra ``gym``)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, ClassVar

from rlvr_lite.errors import UserError, unknown_name
from rlvr_lite.tasks._generated import GeneratedTask

__all__ = ["GymTask"]


class GymTask(GeneratedTask):
    """A reasoning-gym data set; only those whose entries have one final answer suit a reward that compares answers.

    Args:
        dataset: its name in reasoning-gym.
        **options: fields of that data set's configuration.
    """

    splits = ("train", "validation", "test")
    shares: ClassVar = {"train": 80, "validation": 10, "test": 10}
    max_completion_length = 512

    def __init__(self, dataset: str, **options: Any):
        try:
            import reasoning_gym
            from reasoning_gym.factory import DATASETS
        except ImportError as error:
            raise UserError(
                f"task gym:{dataset} needs reasoning-gym: install it with pip install 'rlvr-lite[gym]'"
            ) from error
        if dataset not in DATASETS:
            raise unknown_name("reasoning-gym task", dataset, DATASETS)
        self.name = f"gym:{dataset}"
        self._dataset = dataset
        self._options = options
        self._create = reasoning_gym.create_dataset
        next(self.stream(random.Random(0), ood=False))

    def stream(self, rng: random.Random, *, ood: bool) -> Iterator[tuple[str, str]]:
        """See :class:`GeneratedTask`."""
        try:
            entries = self._create(self._dataset, size=2**31, seed=rng.randrange(2**31), **self._options)
        except (TypeError, ValueError, AssertionError) as error:
            raise UserError(f"task {self.name} refuses its options: {error}") from error
        for index in range(len(entries)):
            entry = entries[index]
            if entry["answer"] is None:
                raise UserError(f"task {self.name} has no single answer to compare with: choose another")
            yield entry["question"].strip(), str(entry["answer"])
