"""What a run is trained on and scored by: one objective, of the task's grade and the run's reward functions."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datasets import Dataset

from rlvr_lite import evaluation, resolve, rewards, tasks
from rlvr_lite.config import RunConfig
from rlvr_lite.errors import UserError
from rlvr_lite.tasks import Problem, Task
from rlvr_lite.training._guard import guard

if TYPE_CHECKING:
    from rlvr_lite.sampling import Completion

__all__ = ["REWARD_SECONDS", "Graded", "Objective", "dataset"]

#: That a reward function may take for a batch.
REWARD_SECONDS = 60.0

#: What TRL passes to a reward function besides the columns.
_PASSED = (
    *("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "environments"),
    "rendered_prompts",  # passed by the collector
)
#: Columns that TRL takes for itself and no reward function sees.
_TAKEN = ("completion", "completion_ids")


class Graded:
    """The reward ``accuracy``: what the task's grade says of a completion; ``None`` where it gives no verdict."""

    __name__ = "accuracy"

    def __init__(self, task: Task):
        self.task = task

    @functools.cached_property
    def _by_id(self) -> dict[str, Problem]:
        return {problem.id: problem for problem in self.task.problems("train")}

    def __call__(
        self,
        completions: Sequence[Any],
        id: Sequence[str],
        rendered_prompts: Sequence[str] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """In TRL's signature; ``id`` is the column of the data set that :func:`dataset` makes."""
        texts = [rewards.text_of(completion) for completion in completions]
        verdicts = self.task.verdicts([self._by_id[one] for one in id], texts, rendered_prompts)
        return [None if verdict.correct is None else float(verdict.correct) for verdict in verdicts]


@dataclass(frozen=True)
class Objective:
    """Reward functions of a run on its task.

    Attributes:
        task: of the run.
        config: of the run, every field filled in.
        functions: in TRL's signature.
    """

    task: Task
    config: RunConfig
    functions: tuple[Callable[..., Any], ...]

    @classmethod
    def of(cls, given: Any, config: RunConfig, task: Task) -> Objective:
        """The objective of what the caller named as rewards; ``accuracy`` is the task's own grade.

        Raises:
            UserError: an unknown reward, or problems that lack what it reads.
        """
        functions, _ = resolve.reward_functions(given, config.max_completion_length or 1)
        found = cls(task, config, tuple(Graded(task) if f is rewards.accuracy else f for f in functions))
        found.check()
        return found

    @property
    def graded(self) -> bool:
        """Whether the task's grade is among the rewards, so that accuracy is what is scored."""
        return any(isinstance(function, Graded) for function in self.functions)

    def check(self) -> None:
        """Refuse problems that lack a gold where one is read, and columns that hide what TRL passes.

        Raises:
            UserError: some do; nothing was trained.
        """
        splits = ["train", *([self.config.eval_split] if self.config.eval_problems else [])]
        for split in splits:
            problems = [] if isinstance(self.task, tasks.GeneratedTask) else self.task.problems(split)
            if self.graded and self.task.reads_answers:
                tasks.require_answers(problems, f"task {self.task.name}, {split}", getattr(self.task, "answer", None))
            hidden = next((name for p in problems for name in p.columns if name in _PASSED), None)
            if hidden is not None and hidden not in _TAKEN:
                raise UserError(f"a column is called {hidden}, which TRL passes to reward functions itself: rename it")

    def grade(self) -> evaluation.Grade | None:
        """What judges the answers of an evaluation: the task's grade, or the weighted rewards of a run without it."""
        return evaluation.graded_by(self.task) if self.graded else self._rewards

    def _rewards(self, problems: Sequence[Problem], drawn: Sequence[Completion]) -> list[float | None]:
        style = self.config.prompt_style or "instruct"
        rows = _rows(problems, self.task, style)
        prompts = [row.pop("prompt") for row in rows]
        columns = {name: [row[name] for row in rows] for name in rows[0] if name not in _TAKEN}
        arguments = {
            "prompts": prompts,
            "completions": [[{"role": "assistant", "content": completion.text}] for completion in drawn],
            "completion_ids": [list(completion.ids) for completion in drawn],
            "rendered_prompts": [completion.prompt for completion in drawn],
            "trainer_state": None,
            "log_extra": lambda *_: None,
            "log_metric": lambda *_: None,
        }
        weights = self.config.reward_weights or (1.0,) * len(self.functions)
        sums: list[float | None] = [None] * len(drawn)
        for function, weight in zip(guard(self.functions, REWARD_SECONDS, "skip"), weights, strict=True):
            values = function(**arguments, **columns)
            for i, value in enumerate(asyncio.run(values) if inspect.iscoroutine(values) else values):
                if value is not None:
                    sums[i] = (sums[i] or 0.0) + weight * value
        return sums


def _rows(problems: Sequence[Problem], task: Task, style: Any) -> list[dict[str, Any]]:
    """What reward functions get of each problem: the row it comes from, its id, prompt and gold."""
    own = getattr(task, "answer", None) not in (None, "answer")  # the gold has a column of another name
    rows = []
    for problem in problems:
        row = {"problem": problem.problem, "answer": problem.answer, **problem.columns}
        row |= {"id": problem.id, "prompt": task.messages(problem, style)} | ({"answer": problem.answer} if own else {})
        rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in names} for row in rows]


def dataset(task: Task, style: Any) -> Dataset:
    """The train problems of a task as the data set that TRL trains on, with every column of their rows.

    Raises:
        UserError: a column holds values of two kinds.
    """
    problems = task.problems("train")
    rows = _rows(problems, task, style)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    kept: dict[str, Any] = {}
    for name, values in columns.items():
        kept[name] = values if _fits(values) else [problem.answer for problem in problems] if name == "answer" else None
        if kept[name] is None:
            kinds = sorted({type(value).__name__ for value in values if value is not None})
            raise UserError(
                f"task {task.name}: the column {name} holds values of several kinds ({', '.join(kinds)}): write all rows "
                "alike, or leave the column out"
            )
    return Dataset.from_dict(kept)


def _fits(values: Sequence[Any]) -> bool:
    """Whether Arrow has a type for all of them."""
    import pyarrow

    try:
        pyarrow.array(values)
    except (pyarrow.ArrowException, OverflowError, TypeError, ValueError):
        return False
    return True
