"""A sampler whose answers follow from the row keys alone, so that tests need no model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from rlvr_lite.config import SamplingConfig
from rlvr_lite.sampling import Messages, Portion, Sampler, Samples, plan_portions
from rlvr_lite.tasks import Problem

PROBLEMS = [Problem(f"p{i:02d}", f"What is {i}+{i}?", str(2 * i)) for i in range(12)]


def ask(problem: Problem) -> list[dict[str, str]]:
    return [{"role": "user", "content": problem.problem}]


def asked(prompt: Messages) -> str:
    assert not isinstance(prompt, str)
    return prompt[-1]["content"]


class FakeSampler(Sampler):
    """Right with a chance that differs by problem; greedy answers are right for even numbers."""

    name, precision, weights = "fake", "fp32", "none"

    def __init__(self, room: int = 200, die_after: int | None = None):
        self._room, self._left = room, die_after
        self.drawn: list[tuple[str, int]] = []
        self.largest = 0

    def room(self) -> int:
        return self._room

    def portions(self, prompts: Sequence[Messages], k: int, config: SamplingConfig, room: int) -> Iterable[Portion]:
        return plan_portions([len(asked(prompt)) for prompt in prompts], k, config.max_completion_length, room)

    def sample(self, prompts: Sequence[Messages], k: int, config: SamplingConfig, keys: Sequence[int]) -> Samples:
        if self._left == 0:
            raise KeyboardInterrupt
        if self._left is not None:
            self._left -= 1
        self.largest = max(self.largest, len(prompts) * k)
        texts, lengths, ended = [], [], []
        for position, prompt in enumerate(prompts):
            number = int(asked(prompt).split("+")[1].rstrip("?"))
            for key in keys[position * k : (position + 1) * k]:
                self.drawn.append((asked(prompt), key))
                right = number % 2 == 0 if config.greedy else key % 12 >= number
                texts.append(f"so \\boxed{{{2 * number if right else key % 3 - 9}}}")
                lengths.append(5 + key % 7)
                ended.append(key % 5 != 0)
        mask = (torch.arange(12) < torch.tensor(lengths)[:, None]).long()
        return Samples(mask, mask, -0.1 * mask, texts, torch.tensor(ended))
