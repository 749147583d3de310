"""From the name of a benchmark to its problems, checked."""

from __future__ import annotations

import hashlib
import random
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlvr_lite import tasks
from rlvr_lite.config import Option
from rlvr_lite.errors import UserError, unknown_name
from rlvr_lite.evaluation.benchmarks import BENCHMARKS, Benchmark
from rlvr_lite.evaluation.scoring import check_problems
from rlvr_lite.records import read_jsonl
from rlvr_lite.tasks import SPLITS, Problem, Task

__all__ = ["ProblemSet", "checksum_of", "load_problems", "read_problems"]

_GENERATED_SIZE = 500  # problems of a generated task when no number is asked for


@dataclass(frozen=True)
class ProblemSet:
    """Problems ready to be asked.

    Attributes:
        name: of the benchmark.
        problems: with different ids.
        task: puts a problem into messages.
        checksum: over all problems and answers of the source, before exclusions.
        source: file or data set.
        k: samples a problem in the paper's protocol; ``None`` where it has none.
        excluded: ids left out, with the reason.
        max_new_tokens: tokens a good answer fits in, where the task says so.
    """

    name: str
    problems: tuple[Problem, ...]
    task: Task
    checksum: str
    source: str
    k: int | None = None
    excluded: Mapping[str, str] = field(default_factory=dict)
    max_new_tokens: int | None = None


def load_problems(
    spec: str, n: int | None = None, *, task_options: Mapping[str, Mapping[str, Option]] | None = None
) -> ProblemSet:
    """The problems that a benchmark's name stands for.

    Args:
        spec: a name of :func:`list_benchmarks`; ``TASK:SPLIT``, such as ``chain-sum:ood``; or ``NAME=FILE.jsonl`` or
            ``FILE.jsonl`` with columns problem and answer, and id if there is one.
        n: at most so many, always the same ones.
        task_options: dials of tasks, by their name.

    Raises:
        UserError: an unknown name, a damaged file, or neither file nor network.
    """
    if n is not None and n < 1:
        raise UserError(f"a benchmark needs at least one problem, {n} asked")
    label, _, path = spec.rpartition("=")
    if path.endswith(".jsonl"):
        return _from_file(label or Path(path).stem, Path(path), n)
    if spec in BENCHMARKS:
        return _from_benchmark(spec, BENCHMARKS[spec], n)
    name, colon, split = spec.rpartition(":")
    if colon and split in SPLITS:
        task = tasks.get(name, **(task_options or {}).get(name, {}))
        size = _GENERATED_SIZE if n is None and isinstance(task, tasks.GeneratedTask) else n
        everything = task.problems(split) if size is None else task.at_most(split, size)
        check_problems(spec, everything)
        checksum = checksum_of(everything)
        return ProblemSet(spec, tuple(everything), task, checksum, spec, max_new_tokens=task.max_completion_length)
    raise unknown_name("benchmark", spec, [*BENCHMARKS, *(f"{task}:test" for task in ("chain-sum", "linear-equation"))])


def _from_file(name: str, path: Path, n: int | None) -> ProblemSet:
    problems = read_problems(read_jsonl(path), path.stem, source=str(path))
    task = tasks.StoredTask(name, {"test": problems}, 0)
    return ProblemSet(name, tuple(_subset(problems, n)), task, checksum_of(problems), str(path))


def _from_benchmark(name: str, benchmark: Benchmark, n: int | None) -> ProblemSet:
    path = benchmark.local
    rows = read_jsonl(path) if path else _hub_rows(benchmark)
    columns = {} if path else {"problem": benchmark.problem, "answer": benchmark.answer}
    source = str(benchmark.file) if path else f"{benchmark.repository}@{benchmark.revision or 'newest'}"
    problems = read_problems(rows, Path(benchmark.file).stem, source=source, ids=path is not None, **columns)
    checksum = checksum_of(problems)
    excluded = dict(benchmark.excluded)
    if checksum != benchmark.checksum:
        excluded = {}
        warnings.warn(
            f"{name} from {source} is not the version recorded here (checksum {checksum}): nothing is left out, and "
            "compare it only with evaluations of the same checksum",
            stacklevel=3,
        )
    kept = [problem for problem in problems if problem.id not in excluded]
    task = tasks.StoredTask(name, {"test": kept}, 0)
    return ProblemSet(name, tuple(_subset(kept, n)), task, checksum, source, benchmark.k, excluded)


def _hub_rows(benchmark: Benchmark) -> list[Mapping[str, Any]]:
    import datasets

    try:
        found = datasets.load_dataset(
            benchmark.repository, benchmark.config, split=benchmark.split, revision=benchmark.revision
        )
    except Exception as error:  # datasets passes on whatever its HTTP client raises
        raise UserError(
            f"cannot load {benchmark.repository} ({type(error).__name__}): connect to the Hugging Face Hub, or set "
            f"RLVR_LITE_DATA to a folder that holds {benchmark.file}"
        ) from error
    return list(found)


def read_problems(
    rows: Sequence[Mapping[str, Any]],
    stem: str,
    *,
    source: str,
    problem: str = "problem",
    answer: str = "answer",
    ids: bool = True,
) -> list[Problem]:
    """Rows as problems, in their order, none dropped.

    Args:
        rows: mappings with the named columns.
        stem: rows without an id are called ``STEM-000``, ``STEM-001``, ...
        source: for messages.
        problem: column of the question.
        answer: column of the answer.
        ids: take the ``id`` column where there is one.

    Raises:
        UserError: no rows, a column missing, a question or answer empty, or an id twice.
    """
    if not rows:
        raise UserError(f"{source} is empty: give at least one row with a problem and an answer")
    width = max(3, len(str(len(rows))))
    problems = []
    for number, row in enumerate(rows):
        for column in (problem, answer):
            if column not in row:
                has = ", ".join(map(str, row)) or "none"
                raise UserError(f"{source}, row {number + 1} has no {column} column, only {has}: rename or add it")
        own = row.get("id") if ids else None
        id = f"{stem}-{number:0{width}}" if own is None else str(own)
        question = row[problem]
        if not isinstance(question, str):
            raise UserError(f"{source}, row {number + 1}: {problem} is a {type(question).__name__}, not text; mend it")
        problems.append(Problem(id, question.strip(), _answer(row[answer])))
    check_problems(source, problems)
    return problems


def _answer(value: Any) -> str:
    """The final answer of a cell: ``27.0`` is 27, of a worked solution the part after ``####``, of a list its entry."""
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or isinstance(value, list | tuple | dict | bool):
        return ""
    text = str(value).rpartition("####")[2].strip()
    return text[1:-1].strip() if len(text) > 2 and text[0] == text[-1] == "$" and text[-2] != "\\" else text


def checksum_of(problems: Iterable[Problem]) -> str:
    """First 16 hexadecimal digits of SHA-256 over question and answer of each problem, in order."""
    digest = hashlib.sha256()
    for problem in problems:
        digest.update(f"{problem.problem.strip()}\t{problem.answer.strip()}\n".encode())
    return digest.hexdigest()[:16]


def _subset(problems: Sequence[Problem], n: int | None) -> list[Problem]:
    """At most ``n`` problems, spread over the whole; the same ones each time, and among those of a larger ``n``."""
    order = list(problems)
    if n is None:
        return order
    random.Random("rlvr_lite").shuffle(order)
    return order[:n]
