"""What a task is: problems in splits that never share a prompt, how they are put to a model, and what grades an answer."""

from __future__ import annotations

import hashlib
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from rlvr_lite.config import PromptStyle
from rlvr_lite.errors import UserError, unknown_name
from rlvr_lite.rewards import Verdict, verify_batch

__all__ = ["INSTRUCTION", "SPLITS", "Message", "Problem", "Task", "share_of"]

#: ``ood`` is harder than anything trained on; not every task has it.
SPLITS = ("train", "validation", "test", "ood")

INSTRUCTION = "Reason step by step, and put the final answer in \\boxed{}."

#: One turn of a chat: ``role``, ``content`` and whatever else the chat template reads.
Message = Mapping[str, Any]


@dataclass(frozen=True)
class Problem:
    """One prompt, and what is known about a right answer to it.

    Attributes:
        id: the same for the same problem of the same task, whatever the split's size and seed.
        prompt: what is asked: a text, or a whole chat.
        answer: the final answer (the gold), without ``\\boxed{}``; ``None`` where there is none.
        columns: the row that the problem comes from, as reward functions get it.
    """

    id: str
    prompt: str | tuple[Message, ...]
    answer: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def text(self) -> str:
        """What tells this prompt from others: of a question alone its text, of a longer chat all turns as JSON."""
        if isinstance(self.prompt, str):
            return self.prompt
        if (
            len(self.prompt) == 1
            and self.prompt[0].get("role") == "user"
            and set(self.prompt[0]) == {"role", "content"}
        ):
            content = self.prompt[0]["content"]
            if isinstance(content, str):
                return content.strip()
        return json.dumps(self.prompt, sort_keys=True, ensure_ascii=False, default=str)

    @property
    def problem(self) -> str:
        """What is asked, for a person to read: the prompt, of a chat the last thing that the user says."""
        if isinstance(self.prompt, str):
            return self.prompt
        asked = [turn["content"] for turn in self.prompt if turn["role"] == "user"]
        return str(asked[-1] if asked else self.prompt[-1]["content"])


class Task(ABC):
    """A source of problems, the way they are put to a model, and what judges an answer.

    Attributes:
        name: what the task is called in tables and run directories.
        max_completion_length: tokens a good answer fits in; longer ones are cut. 0 where nothing is known of it.
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

        The same arguments give the same list; no prompt occurs twice; ``problems(split, n)`` is the beginning of
        ``problems(split, m)`` for ``m > n``; and whatever the seeds, two splits share no prompt.

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

    def messages(self, problem: Problem | str, style: PromptStyle = "instruct") -> list[dict[str, Any]]:
        """The chat that asks a problem, for a tokenizer's chat template.

        A prompt that is a chat already is put as it stands, in either style. One that ends in an assistant's turn
        is an opening, which the model continues.

        Args:
            problem: a problem, or the text of one.
            style: ``bare`` is the question alone; ``instruct`` opens with the instruction, shows the worked examples
                as earlier turns, and asks last. A problem without a gold has no final answer to ask for and is ``bare``.

        Raises:
            UserError: there is no such style.
        """
        if style not in ("bare", "instruct"):
            raise unknown_name("prompt style", style, ("bare", "instruct"))
        if isinstance(problem, Problem) and not isinstance(problem.prompt, str):
            return [dict(turn) for turn in problem.prompt]
        question = problem.problem if isinstance(problem, Problem) else problem
        asks = self.reads_answers and isinstance(problem, Problem) and problem.answer is None
        if style == "bare" or asks:
            return [{"role": "user", "content": question}]
        if not self.examples:
            return [{"role": "user", "content": f"{question}\n\n{self.instruction}"}]
        chat = []
        for asked, answered in self.examples:
            chat += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
        chat.append({"role": "user", "content": question})
        chat[0]["content"] = f"{self.instruction}\n\n{chat[0]['content']}"
        return chat

    def grade(
        self, problems: Sequence[Problem], completions: Sequence[str], prompts: Sequence[str] | None = None
    ) -> list[Verdict]:
        """The verdict on each completion; what the reward ``accuracy`` and every score of this task are made of.

        By default the boxed answer is compared with the gold (:func:`rlvr_lite.rewards.verify_batch`). A task with
        another notion of right overrides it.

        Args:
            problems: one a completion.
            completions: texts, special tokens left out; hostile, as a policy is paid for fooling what grades it.
            prompts: what they continue, after the chat template: one that ends in an opened ``<think>`` leaves its completion
                to close it. A task that has no use for them may leave the argument out.

        Raises:
            UserError: a problem has no gold.
        """
        missing = next((problem.id for problem in problems if problem.answer is None), None)
        if missing is not None:
            raise UserError(
                f"problem {missing} has no answer to compare with: give it one, or train on a reward of your own"
            )
        return verify_batch([problem.answer or "" for problem in problems], list(completions), prompts=prompts)

    def verdicts(
        self, problems: Sequence[Problem], completions: Sequence[str], prompts: Sequence[str] | None
    ) -> list[Verdict]:
        """What :meth:`grade` says, told the prompts if it takes them."""
        taken = inspect.signature(self.grade).parameters
        if "prompts" in taken or any(one.kind is one.VAR_KEYWORD for one in taken.values()):
            return self.grade(problems, completions, prompts=prompts)
        return self.grade(problems, completions)

    @property
    def reads_answers(self) -> bool:
        """Whether :meth:`grade` compares with golds, so that every problem has to have one."""
        return type(self).grade is Task.grade

    def _check(self, split: str, n: int | None) -> None:
        if split not in SPLITS:
            raise unknown_name("split", split, self.splits)
        if split not in self.splits:
            raise UserError(f"task {self.name} has no {split} split: choose one of {', '.join(self.splits)}")
        if n is not None and n < 0:
            raise UserError(f"cannot draw {n} problems: ask for 0 or more")


def share_of(text: str, shares: Mapping[str, int]) -> str:
    """The split that a prompt belongs to, by a hash of its text alone.

    Args:
        text: of the prompt; the first 8 bytes of its SHA-256 decide.
        shares: percent of all prompts a split gets, summing to 100.

    >>> share_of("3+4-2=?", {"train": 70, "validation": 10, "test": 10, "ood": 10})
    'train'
    """
    place = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) % 100
    for split, percent in shares.items():
        place -= percent
        if place < 0:
            return split
    raise ValueError(f"shares must sum to 100, got {dict(shares)}")
