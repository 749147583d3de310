"""Tasks read from rows: JSONL files, ``datasets.Dataset`` objects, and the named mathematics sets."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvr_lite.errors import UserError
from rlvr_lite.records import read_jsonl
from rlvr_lite.tasks._task import SPLITS, Problem, Task, share_of

__all__ = ["NAMED", "StoredTask", "from_dataset", "from_jsonl", "named", "problems_of"]

PROBLEM_COLUMNS = ("problem", "question", "prompt")
ANSWER_COLUMNS = ("answer",)
_BY_HASH = {"train": 80, "validation": 10, "test": 10}
_TRAIN_BY_HASH = {"train": 90, "validation": 10}


class StoredTask(Task):
    """Problems that are all at hand, in splits.

    Args:
        name: what it is called.
        splits: the problems of each split, in the order of their source.
        max_completion_length: tokens a good answer fits in.
    """

    def __init__(self, name: str, splits: Mapping[str, Sequence[Problem]], max_completion_length: int):
        self.name = name
        self.max_completion_length = max_completion_length
        self.splits = tuple(split for split in SPLITS if split in splits)
        self._problems = {split: tuple(problems) for split, problems in splits.items()}

    def problems(self, split: str, n: int | None = None, seed: int = 0) -> list[Problem]:
        self._check(split, n)
        problems = list(self._problems[split])
        if n is not None and n > len(problems):
            raise UserError(f"task {self.name} has only {len(problems)} {split} problems, {n} asked: ask for fewer")
        random.Random(f"{self.name}/{split}/{seed}").shuffle(problems)
        return problems[:n]


def _column(rows: Sequence[Mapping[str, Any]], given: str | None, known: tuple[str, ...], what: str, name: str) -> str:
    columns = list(rows[0])
    for column in [given] if given else known:
        if column in columns:
            return column
    wanted = given or " or ".join(known)
    raise UserError(
        f"{name} has no {wanted} column, only {', '.join(map(str, columns)) or 'none'}: rename one, or name it with "
        f"the task option {what}"
    )


def _question(value: Any) -> str | None:
    if isinstance(value, list) and value and isinstance(value[-1], Mapping):  # a chat: the last turn asks
        value = value[-1].get("content")
    return value.strip() if isinstance(value, str) else None


def _boxed(text: str) -> str | None:
    """What the last ``\\boxed{}`` holds; ``None`` if its braces do not close."""
    start = text.rfind("\\boxed{") + len("\\boxed{")
    depth = 1
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start:place]
    return None


def _final_answer(value: Any) -> str | None:
    """The gold of an answer cell: a number, a bare answer, or a solution that ends in ``#### x`` or ``\\boxed{x}``."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        return None
    if "####" in value:
        return value.rpartition("####")[2].strip()
    if "\\boxed{" in value:
        return (_boxed(value) or "").strip()
    return value.strip()


def problems_of(
    rows: Iterable[Mapping[str, Any]], name: str, *, problem: str | None = None, answer: str | None = None
) -> list[Problem]:
    """Rows as problems; of rows that ask the same question, the first is kept.

    Args:
        rows: mappings with a problem column (``problem``, ``question`` or ``prompt``) and an ``answer`` column.
        name: the source, for messages and ids.
        problem: the problem column, if it is called otherwise.
        answer: the answer column, if it is called otherwise.

    Raises:
        UserError: there are no rows, a column is missing, or a row has no usable question or answer.
    """
    rows = list(rows)
    if not rows:
        raise UserError(f"{name} is empty: give at least one row with a problem and an answer")
    asks = _column(rows, problem, PROBLEM_COLUMNS, "problem", name)
    answers = _column(rows, answer, ANSWER_COLUMNS, "answer", name)
    found: dict[str, Problem] = {}
    prefix = Path(name).stem
    for number, row in enumerate(rows, start=1):
        question, gold = _question(row.get(asks)), _final_answer(row.get(answers))
        for column, text in ((asks, question), (answers, gold)):
            if not text:
                value = row.get(column)
                state = f"is a {type(value).__name__}, not text" if value and text is None else "is empty"
                raise UserError(f"{name}, row {number}: {column} {state}; fill it in or delete the row")
        assert question
        assert gold
        key = row.get("id")
        found.setdefault(question, Problem(str(key) if key else f"{prefix}-{number - 1:05d}", question, gold))
    return list(found.values())


def _by_hash(problems: Sequence[Problem], shares: Mapping[str, int]) -> dict[str, list[Problem]]:
    splits: dict[str, list[Problem]] = {split: [] for split in shares}
    for problem in problems:
        # Another hash than the generated tasks': their train questions, stored in a file, would all fall to train again.
        splits[share_of(f"stored\n{problem.problem}", shares)].append(problem)
    return splits


def from_jsonl(path: Path, problem: str | None = None, answer: str | None = None) -> StoredTask:
    """A JSONL file as a task; a hash of each question sorts it into train (80 %), validation and test (10 % each)."""
    problems = problems_of(read_jsonl(path), str(path), problem=problem, answer=answer)
    return StoredTask(path.stem, _by_hash(problems, _BY_HASH), 1024)


def from_dataset(dataset: Any, problem: str | None = None, answer: str | None = None) -> StoredTask:
    """A ``datasets.Dataset`` as a task, split like a JSONL file."""
    problems = problems_of(dataset, "dataset", problem=problem, answer=answer)
    return StoredTask("dataset", _by_hash(problems, _BY_HASH), 1024)


@dataclass(frozen=True)
class _Source:
    """A split's origin: a file of the data folder, or a data set of the Hub."""

    file: str
    repository: str
    config: str
    split: str
    problem: str
    answer: str

    def problems(self) -> list[Problem]:
        folder = os.environ.get("RLVR_LITE_DATA")
        if folder and (Path(folder) / self.file).is_file():
            return problems_of(read_jsonl(Path(folder) / self.file), self.file)
        return problems_of(_hub_rows(self), self.repository, problem=self.problem, answer=self.answer)


def _hub_rows(source: _Source) -> Iterable[Mapping[str, Any]]:
    import datasets
    import huggingface_hub

    try:
        # without network this fails at once, where load_dataset would try again for half a minute
        huggingface_hub.snapshot_download(source.repository, repo_type="dataset", allow_patterns="README.md")
        return datasets.load_dataset(source.repository, source.config, split=source.split)
    except Exception as error:  # datasets passes on whatever its HTTP client raises
        raise UserError(
            f"cannot load {source.repository} ({type(error).__name__}): connect to the Hugging Face Hub, or set "
            f"RLVR_LITE_DATA to a folder that holds {source.file}"
        ) from error


@dataclass(frozen=True)
class _Named:
    about: str
    train: _Source
    test: _Source | None
    max_completion_length: int


#: The mathematics sets known by name.
NAMED: Mapping[str, _Named] = {
    "gsm8k": _Named(
        "grade-school word problems",
        _Source("gsm8k_train_2000.jsonl", "openai/gsm8k", "main", "train", "question", "answer"),
        _Source("gsm8k_test.jsonl", "openai/gsm8k", "main", "test", "question", "answer"),
        512,
    ),
    "math": _Named(
        "competition mathematics (MATH); test is MATH-500",
        _Source(
            "math_train_int_2000.jsonl", "DigitalLearningGmbH/MATH-lighteval", "default", "train", "problem", "solution"
        ),
        _Source("math500.jsonl", "HuggingFaceH4/MATH-500", "default", "test", "problem", "answer"),
        1024,
    ),
    "dapo": _Named(
        "competition mathematics with whole-number answers (DAPO-Math)",
        _Source("dapo_math_2000.jsonl", "open-r1/DAPO-Math-17k-Processed", "en", "train", "prompt", "solution"),
        None,
        2048,
    ),
}


def named(name: str) -> StoredTask:
    """One of :data:`NAMED`, from the folder RLVR_LITE_DATA where it has the file, else from the Hub.

    Without a test file of its own, a set's test split is a tenth of its rows, by hash.
    """
    entry = NAMED[name]
    train = entry.train.problems()
    if entry.test is None:
        splits = _by_hash(train, _BY_HASH)
    else:
        test = entry.test.problems()
        held_out = {problem.problem for problem in test}
        splits = _by_hash([p for p in train if p.problem not in held_out], _TRAIN_BY_HASH) | {"test": test}
    return StoredTask(name, splits, entry.max_completion_length)
