"""From the name of a benchmark to its problems, checked."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlvr_lite import tasks
from rlvr_lite.config import Option
from rlvr_lite.errors import UserError, unknown_name
from rlvr_lite.tasks import BENCHMARKS, SPLITS, Problem, Task

__all__ = ["ProblemSet", "load_problems"]

_GENERATED_SIZE = 500  # problems of a generated task when no number is asked for


@dataclass(frozen=True)
class ProblemSet:
    """Problems ready to be asked.

    Attributes:
        name: of the benchmark.
        problems: with different ids.
        task: puts a problem into messages, and grades the answers.
        checksum: over all problems and answers of the source, before exclusions.
        source: file or data set.
        k: samples a problem in the paper's protocol; ``None`` where it has none.
        excluded: ids left out, with the reason.
        max_completion_length: tokens a good answer fits in, where the task says so.
    """

    name: str
    problems: tuple[Problem, ...]
    task: Task
    checksum: str
    source: str
    k: int | None = None
    excluded: Mapping[str, str] = field(default_factory=dict)
    max_completion_length: int | None = None


def load_problems(
    spec: Any,
    n: int | None = None,
    *,
    task_options: Mapping[str, Mapping[str, Option]] | None = None,
    near: Path | None = None,
) -> ProblemSet:
    """The problems that a benchmark's name stands for.

    Args:
        spec: a name of :func:`list_benchmarks`; ``TASK:SPLIT``, such as ``chain-sum:ood``; ``FILE`` or ``NAME=FILE``,
            read as a task's file is and asked as a whole; or a data set, data frame or list of rows.
        n: at most so many, always the same ones.
        task_options: dials of tasks, by their name.
        near: the folder of a run, which may hold a copy of its task.

    Raises:
        UserError: an unknown name, a damaged file, problems without an answer, or neither file nor network.
    """
    if n is not None and n < 1:
        raise UserError(f"a benchmark needs at least one problem, {n} asked")
    if isinstance(spec, Task) or not isinstance(spec, str | Path):
        return _whole("own problems" if not isinstance(spec, Task) else spec.name, spec, n)
    label, _, path = str(spec).rpartition("=")
    if Path(path).suffix.lower() in tasks.SUFFIXES:
        return _whole(label or Path(path).stem, Path(path), n)
    spec = str(spec)
    if spec in BENCHMARKS:
        task = tasks.pinned(spec)
        problems = _checked(spec, task, _subset(task.stored("test"), n))
        return ProblemSet(spec, problems, task, task.checksum, task.source, task.k, task.excluded)
    name, colon, split = spec.rpartition(":")
    if colon and split in SPLITS:
        found = tasks.recall(name, dict((task_options or {}).get(name, {})), near=near)
        size = _GENERATED_SIZE if n is None and isinstance(found, tasks.GeneratedTask) else n
        everything = found.problems(split) if size is None else found.at_most(split, size)
        problems = _checked(spec, found, everything)
        checksum = tasks.checksum_of(problems)
        return ProblemSet(
            spec, problems, found, checksum, spec, max_completion_length=found.max_completion_length or None
        )
    raise unknown_name("benchmark", spec, [*BENCHMARKS, *(f"{task}:test" for task in ("chain-sum", "linear-equation"))])


def _whole(name: str, source: Any, n: int | None) -> ProblemSet:
    """All problems of a source, whatever its splits."""
    if isinstance(source, Task):
        task = source
        everything = [problem for split in task.splits for problem in task.problems(split)]
    else:
        prefix = source.stem if isinstance(source, Path) else "dataset"
        everything = tasks.problems_in(source, str(source) if isinstance(source, Path) else name, prefix=prefix)
        task = tasks.StoredTask(name, {"test": everything}, 0)
    problems = _checked(name, task, _subset(everything, n))
    shown = str(source) if isinstance(source, Path) else name
    return ProblemSet(name, problems, task, tasks.checksum_of(everything), shown)


def _checked(name: str, task: Task, problems: Sequence[Problem]) -> tuple[Problem, ...]:
    if not problems:
        raise UserError(f"{name} has no problems: ask for at least one")
    if task.reads_answers:
        tasks.require_answers(problems, name)
    return tuple(problems)


def _subset(problems: Sequence[Problem], n: int | None) -> list[Problem]:
    """At most ``n`` problems, spread over the whole; the same ones each time, and among those of a larger ``n``."""
    order = list(problems)
    if n is None:
        return order
    random.Random("rlvr_lite").shuffle(order)
    return order[:n]
