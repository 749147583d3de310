"""A sampler whose answers follow from the row keys alone, so that tests need no model."""

from __future__ import annotations

from collections.abc import Sequence

from rlvr_lite.config import SamplingConfig
from rlvr_lite.evaluation.engines import Messages
from rlvr_lite.sampling import Completion
from rlvr_lite.tasks import Problem

PROBLEMS = [Problem(f"p{i:02d}", f"What is {i}+{i}?", str(2 * i)) for i in range(12)]


def ask(problem: Problem) -> list[dict[str, str]]:
    return [{"role": "user", "content": problem.problem}]


class FakeEngine:
    """Right with a chance that differs by problem; greedy answers are right for even numbers."""

    name = "fake"
    max_rows = 256

    def __init__(self, room: int = 200, die_after: int | None = None):
        self._room, self._left = room, die_after
        self.drawn: list[tuple[str, int]] = []
        self.largest = 0

    def prompt_lengths(self, prompts: Sequence[Messages]) -> list[int]:
        return [len(prompt[-1]["content"]) for prompt in prompts]

    def room(self) -> int:
        return self._room

    def sample(
        self, prompts: Sequence[Messages], k: int, sampling: SamplingConfig, keys: Sequence[int]
    ) -> list[list[Completion]]:
        if self._left == 0:
            raise KeyboardInterrupt
        if self._left is not None:
            self._left -= 1
        self.largest = max(self.largest, len(prompts) * k)
        answers = []
        for position, prompt in enumerate(prompts):
            number = int(prompt[-1]["content"].split("+")[1].rstrip("?"))
            row = []
            for key in keys[position * k : (position + 1) * k]:
                self.drawn.append((prompt[-1]["content"], key))
                right = number % 2 == 0 if sampling.greedy else key % 12 >= number
                text = f"so \\boxed{{{2 * number if right else key % 3 - 9}}}"
                row.append(Completion(text, 5 + key % 7, key % 5 == 0))
            answers.append(row)
        return answers
