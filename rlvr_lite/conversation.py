"""The policy before and after training, side by side: in a terminal and in a notebook."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rlvr_lite import tasks
from rlvr_lite.config import SamplingConfig
from rlvr_lite.errors import UserError, as_html, printable
from rlvr_lite.exports import Trained, load_trained, quietly
from rlvr_lite.runs import RunRecord
from rlvr_lite.sampling import Completion, TransformersSampler, row_keys

__all__ = ["Chat", "Reply", "chat"]

_LEAVE = ("exit", "quit", ":q")


@dataclass(frozen=True)
class Reply:
    """Two answers to one question.

    Attributes:
        question: as it was asked.
        before: the base's answer.
        after: the trained policy's.
    """

    question: str
    before: Completion
    after: Completion

    def __str__(self) -> str:
        width = max(24, (shutil.get_terminal_size((100, 24)).columns - 3) // 2)
        columns = [_wrap(f"{name}\n\n{_text(answer)}", width) for name, answer in self._named()]
        height = max(map(len, columns))
        left, right = (column + [""] * (height - len(column)) for column in columns)
        return "\n".join(f"{a:<{width}} │ {b}".rstrip() for a, b in zip(left, right, strict=True))

    def _repr_html_(self) -> str:
        cell = '<td style="vertical-align:top;text-align:left;white-space:pre-wrap;width:50%">{}</td>'
        heads = "".join(f'<th style="text-align:left">{name}</th>' for name, _ in self._named())
        cells = "".join(cell.format(as_html(_text(answer))) for _, answer in self._named())
        return f"<p><b>{as_html(self.question)}</b></p><table><tr>{heads}</tr><tr>{cells}</tr></table>"

    def _named(self) -> list[tuple[str, Completion]]:
        return [("before training", self.before), ("after training", self.after)]


def _text(answer: Completion) -> str:
    return printable(answer.text) + (" … (cut)" if answer.truncated else "")


def _wrap(text: str, width: int) -> list[str]:
    lines = [textwrap.wrap(line, width, drop_whitespace=False) or [""] for line in text.splitlines()]
    return [part for parts in lines for part in parts]


class Chat:
    """Both policies in memory, asked the same questions.

    Args:
        run: a ``Run`` or its directory.
        temperature: of the answers; 0 takes the most likely token.
        max_completion_length: longest answer; by default as in training.
        seed: of drawn answers.
        force: also take a run whose proof failed.
    """

    def __init__(
        self,
        run: Any,
        *,
        temperature: float = 0.0,
        max_completion_length: int | None = None,
        seed: int = 0,
        force: bool = False,
    ):
        facts = RunRecord.open(run).gate(force=force)
        self.config = facts.config
        longest = max_completion_length or facts.config.max_completion_length or 512
        self.sampling = SamplingConfig(temperature=temperature, max_completion_length=longest)
        with quietly():
            self.trained: Trained = load_trained(facts)
        self.seed, self.asked = seed, 0

    def __repr__(self) -> str:
        return f"Chat({self.config.method} on {self.config.base}): ask('...') shows it before and after training"

    def ask(self, question: str) -> Reply:
        """Put a question to both, in the way the run was trained; every question stands for itself.

        Raises:
            UserError: the question is empty.
        """
        if not question.strip():
            raise UserError("the question is empty: type a problem")
        prompt = self._messages(question)
        self.asked += 1
        with self.trained.before() as base:
            before = self._answer(base, prompt)
        return Reply(question, before, self._answer(self.trained.model, prompt))

    def _messages(self, question: str) -> list[dict[str, str]]:
        try:
            task = tasks.recall(self.config.task, self.config.task_options, near=self.trained.run.directory)
        except UserError:  # its problems came in memory, or lie elsewhere
            return [{"role": "user", "content": question}]
        return task.messages(question, self.config.prompt_style or "instruct")

    def _answer(self, model: Any, prompt: Any) -> Completion:
        keys = row_keys(self.seed, "chat", self.asked, rows=1)
        sampler = TransformersSampler(model, self.trained.tokenizer)
        return sampler.sample([prompt], 1, self.sampling, keys).completions()[0]

    def talk(self, lines: Iterable[str] | None = None) -> None:
        """Ask one question after another.

        Args:
            lines: the questions; ``None`` reads them from the terminal until its end or ``exit``.
        """
        for question in self._typed() if lines is None else lines:
            if question.strip().lower() in _LEAVE:
                return
            if question.strip():
                print(self.ask(question.strip()), end="\n\n")

    def _typed(self) -> Iterable[str]:
        config = self.config
        print(printable(f"{config.method} on {config.base}, trained on {config.task}; empty input or exit ends."))
        while True:
            try:
                question = input("> ")
            except EOFError:
                return
            if not question.strip():
                return
            yield question


def chat(run: Any, question: str | None = None, **options: Any) -> Reply | Chat:
    """Try a trained policy beside its base.

    In a notebook ``chat(run, "3+4-2=?")`` shows both answers in one cell, and ``talk = chat(run)`` loads the policies
    once for many ``talk.ask(...)``.

    Args:
        run: a ``Run`` or its directory.
        question: what to ask.
        **options: of :class:`Chat`.

    Raises:
        UserError: the run is not finished or failed its proof, or its base is gone or was changed.
    """
    found = Chat(run, **options)
    return found if question is None else found.ask(question)
