"""What a task is: problems with one checkable answer, in splits that never share a question."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from rlvr_lite.config import PromptStyle
from rlvr_lite.errors import UserError, unknown_name

__all__ = ["INSTRUCTION", "SPLITS", "Problem", "Task", "share_of"]

#: ``ood`` is harder than anything trained on; not every task has it.
SPLITS = ("train", "validation", "test", "ood")

INSTRUCTION = "Reason step by step, and put the final answer in \\boxed{}."


@dataclass(frozen=True)
class Problem:
    """One question and its only right answer.

    Attributes:
        id: the same for the same question of the same task, whatever the split's size and seed.
        problem: the question, as the model reads it.
        answer: the final answer, without ``\\boxed{}``.
    """

    id: str
    problem: str
    answer: str


class Task(ABC):
    """A source of problems and the way they are put to a model.

    Attributes:
        name: what the task is called in tables and run directories.
        max_completion_length: tokens a good answer fits in; longer ones are cut.
        splits: those of :data:`SPLITS` that this task has.
        instruction: the request of style ``instruct``.
        examples: (question, worked answer) pairs shown by style ``instruct``.
    """

    name: str
    max_completion_length: int
    splits: tuple[str, ...] = SPLITS
    instruction: ClassVar[str] = INSTRUCTION
    examples: ClassVar[tuple[tuple[str, str], ...]] = ()

    @abstractmethod
    def problems(self, split: str, n: int | None = None, seed: int = 0) -> list[Problem]:
        """The first ``n`` problems of a split, in an order that ``seed`` decides.

        The same arguments give the same list; no question occurs twice; ``problems(split, n)`` is the beginning of
        ``problems(split, m)`` for ``m > n``; and whatever the seeds, two splits share no question.

        Args:
            split: one of :attr:`splits`.
            n: how many; ``None`` takes all, of a generated task at most 10,000.
            seed: another order (of a generated task: other problems too).

        Raises:
            UserError: the task has no such split, or the split has fewer than ``n`` problems.
        """

    def at_most(self, split: str, n: int, seed: int = 0) -> list[Problem]:
        """The first ``n`` problems of a split, or all it has; see :meth:`problems`."""
        return self.problems(split, None, seed)[:n]

    def messages(self, problem: Problem | str, style: PromptStyle = "instruct") -> list[dict[str, str]]:
        """The chat that asks a problem, for a tokenizer's chat template.

        Args:
            problem: a problem, or the text of one.
            style: ``bare`` is the question alone; ``instruct`` opens with the instruction, shows the worked examples
                as earlier turns, and asks last.

        Raises:
            UserError: there is no such style.
        """
        question = problem if isinstance(problem, str) else problem.problem
        if style == "bare":
            return [{"role": "user", "content": question}]
        if style != "instruct":
            raise unknown_name("prompt style", style, ("bare", "instruct"))
        if not self.examples:
            return [{"role": "user", "content": f"{question}\n\n{self.instruction}"}]
        chat = []
        for asked, answered in self.examples:
            chat += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
        chat.append({"role": "user", "content": question})
        chat[0]["content"] = f"{self.instruction}\n\n{chat[0]['content']}"
        return chat

    def _check(self, split: str, n: int | None) -> None:
        if split not in SPLITS:
            raise unknown_name("split", split, self.splits)
        if split not in self.splits:
            raise UserError(f"task {self.name} has no {split} split: choose one of {', '.join(self.splits)}")
        if n is not None and n < 0:
            raise UserError(f"cannot draw {n} problems: ask for 0 or more")


def share_of(question: str, shares: Mapping[str, int]) -> str:
    """The split that a question belongs to, by a hash of its text alone.

    Args:
        question: the text; the first 8 bytes of its SHA-256 decide.
        shares: percent of all questions a split gets, summing to 100.

    >>> share_of("3+4-2=?", {"train": 70, "validation": 10, "test": 10, "ood": 10})
    'train'
    """
    place = int.from_bytes(hashlib.sha256(question.encode()).digest()[:8]) % 100
    for split, percent in shares.items():
        place -= percent
        if place < 0:
            return split
    raise ValueError(f"shares must sum to 100, got {dict(shares)}")
