"""Tasks whose problems come from a random generator, as many as one likes."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, ClassVar

from rlvr_lite.errors import UserError
from rlvr_lite.tasks._task import Problem, Task, share_of

__all__ = ["GeneratedTask", "whole_number", "whole_numbers"]

_MOST = 10_000  # what n=None draws of a task without end
_PATIENCE = 20_000  # draws without a new question after which a split counts as exhausted


class GeneratedTask(Task):
    """A task whose questions are drawn, then sorted into splits by a hash of their text.

    Because a question's text alone decides its split, a question held out from one setting of the dials is held out
    from every other, and ``ood`` has a share of its own that no training ever draws from.
    """

    shares: ClassVar[Mapping[str, int]] = {"train": 70, "validation": 10, "test": 10, "ood": 10}

    @abstractmethod
    def stream(self, rng: random.Random, *, ood: bool) -> Iterator[tuple[str, str]]:
        """Endless (question, answer) pairs; ``ood`` asks for the harder kind."""

    @classmethod
    def split_of(cls, question: str) -> str:
        """The split that a question belongs to."""
        return share_of(question, cls.shares)

    def problems(self, split: str, n: int | None = None, seed: int = 0) -> list[Problem]:
        self._check(split, n)
        found = _draw(self, split, _MOST if n is None else n, seed)
        if len(found) < (n or 1) and n != 0:
            raise UserError(
                f"task {self.name} has only {len(found)} {split} problems with these options, {n or 'some'} asked: "
                "ask for fewer, or widen its dials"
            )
        return list(found)

    def at_most(self, split: str, n: int, seed: int = 0) -> list[Problem]:
        self._check(split, n)
        return list(_draw(self, split, n, seed))


@lru_cache(maxsize=16)
def _draw(task: GeneratedTask, split: str, n: int, seed: int) -> tuple[Problem, ...]:
    """Up to ``n`` problems of a split, fewer where it is exhausted; kept, because every run of a study asks again."""
    found: dict[str, Problem] = {}
    fruitless = 0
    pairs = task.stream(random.Random(f"{task.name}/{split}/{seed}"), ood=split == "ood")
    while len(found) < n and fruitless < _PATIENCE:
        question, answer = next(pairs)
        if question not in found and task.split_of(question) == split:
            found[question] = Problem(
                f"{task.name}:{question}", question, answer, {"problem": question, "answer": answer}
            )
            fruitless = 0
        else:
            fruitless += 1
    return tuple(found.values())


def whole_numbers(option: str, value: Any, least: int) -> tuple[int, ...]:
    """A dial that takes one whole number or several: ``4``, ``(4, 5)`` or the text ``"4,5"``.

    >>> whole_numbers("operands", "4,5", 2)
    (4, 5)
    """
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, tuple | list) else [value]
    try:
        numbers = tuple(int(part) for part in parts if not isinstance(part, float) or part.is_integer())
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or len(numbers) < len(parts) or min(numbers) < least:
        raise UserError(f"{option} must be whole numbers of at least {least}, such as 4 or '4,5'; got {value!r}")
    return numbers


def whole_number(option: str, value: Any, least: int) -> int:
    """A dial that takes exactly one whole number."""
    numbers = whole_numbers(option, value, least)
    if len(numbers) > 1:
        raise UserError(f"{option} takes one whole number, got {value!r}")
    return numbers[0]
