"""Tasks whose problems are all at hand: from rows of any kind, from the named mathematics sets, from a saved copy."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlvr_lite.errors import UserError
from rlvr_lite.tasks._problems import problems_of
from rlvr_lite.tasks._read import from_hub, read
from rlvr_lite.tasks._task import SPLITS, Problem, Task, share_of

__all__ = ["StoredTask", "checksum_of", "complete", "from_source", "hub_task", "is_hub_id", "problems_in"]

_BY_HASH = {"train": 80, "validation": 10, "test": 10}
_LENGTH = 1024  # tokens that an answer to problems of one's own may take


class StoredTask(Task):
    """Problems that are all at hand, in splits.

    Args:
        name: what it is called.
        splits: the problems of each split, in the order of their source.
        max_completion_length: tokens a good answer fits in; 0 where nothing is known of it.
        answer: the answer column, if it is not called ``answer``; for messages.
        in_memory: whether the problems came in memory, so that nobody else can find them by the task's name.
    """

    def __init__(
        self,
        name: str,
        splits: Mapping[str, Sequence[Problem]],
        max_completion_length: int = _LENGTH,
        *,
        answer: str | None = None,
        in_memory: bool = False,
    ):
        self.name = name
        self.max_completion_length = max_completion_length
        self.splits = tuple(split for split in SPLITS if split in splits)
        self.answer = answer
        self.in_memory = in_memory
        self._problems = {split: tuple(splits[split]) for split in self.splits}

    def problems(self, split: str, n: int | None = None, seed: int = 0) -> list[Problem]:
        self._check(split, n)
        problems = list(self._problems[split])
        if n is not None and n > len(problems):
            raise UserError(f"task {self.name} has only {len(problems)} {split} problems, {n} asked: ask for fewer")
        name = "dataset" if self.in_memory else self.name  # a row more must not change the order of all
        random.Random(f"{name}/{split}/{seed}").shuffle(problems)
        return problems[:n]

    def stored(self, split: str) -> tuple[Problem, ...]:
        """All problems of a split in the order of their source."""
        self._check(split, None)
        return self._problems[split]


def checksum_of(problems: Iterable[Problem]) -> str:
    """First 16 hexadecimal digits of SHA-256 over prompt and answer of each problem, in order."""
    digest = hashlib.sha256()
    for problem in problems:
        digest.update(f"{problem.text.strip()}\t{(problem.answer or '').strip()}\n".encode())
    return digest.hexdigest()[:16]


def _digest(splits: Mapping[str, Any]) -> str:
    text = json.dumps(splits, sort_keys=True, ensure_ascii=False, default=repr)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def problems_in(
    source: Any, name: str, *, prefix: str, problem: str | None = None, answer: str | None = None
) -> list[Problem]:
    """All problems of a source, in its order and whatever its splits: one's own benchmark."""
    parts = read(source, name, [c for c in (problem, answer) if c])
    rows = [row for part in parts.values() for row in part]
    return problems_of(rows, name, prefix=prefix, problem=problem, answer=answer)


def from_source(
    source: Any,
    problem: str | None = None,
    answer: str | None = None,
    split: str | None = None,
    test: Any = None,
    *,
    name: str | None = None,
) -> StoredTask:
    """Rows of any kind as a task.

    Splits that the source has are the task's. Of train, validation and test, those it lacks are cut from train by a
    hash of the prompt (a tenth each), so that no row moves when others are added.

    Args:
        source: whatever :func:`rlvr_lite.tasks.get` takes.
        problem: the prompt column, if it is not called problem, question or prompt.
        answer: the answer column, if it is not called answer.
        split: the only split of the source to take, as if it were all.
        test: a source of test problems of its own; what it asks is taken out of train and validation.
        name: of the task.
    """
    path = Path(source) if isinstance(source, str | Path) else None
    shown = str(path) if path else name or "dataset"
    chosen = split is not None and isinstance(source, Mapping)
    if chosen:
        if split not in source:
            raise UserError(f"{shown} has no split {split}: choose one of {', '.join(map(str, source))}")
        source = source[split]
    parts = read(source, shown, [c for c in (problem, answer) if c])
    if split is not None and not chosen:
        if split not in parts:
            raise UserError(f"{shown} has no split {split}: choose one of {', '.join(filter(None, parts)) or 'none'}")
        parts = {"": parts[split]}
    own = read(test, "test") if not isinstance(test, str | Path | None) else {}
    if name is None and path and not own:
        name = path.stem
    elif name is None:
        name = f"{path.stem if path else 'dataset'}-{_digest({**parts, 'own': own} if own else parts)}"
    stem = path.stem if path else "dataset" if not name.count("/") else name.rpartition("/")[2]
    splits = {
        part: problems_of(rows, shown, prefix=f"{stem}-{part}" if part else stem, problem=problem, answer=answer)
        for part, rows in parts.items()
    }
    if test is not None:
        if "test" in splits:
            raise UserError(f"{shown} has a test split, and test gives another: leave one out")
        splits["test"] = _own_test(test, problem, answer)
    in_memory = path is None or not isinstance(test, str | Path | None)
    return StoredTask(name, complete(splits), answer=answer, in_memory=in_memory)


def _own_test(test: Any, problem: str | None, answer: str | None) -> list[Problem]:
    shown = str(test) if isinstance(test, str | Path) else "test"
    source = from_hub(shown, split="test") if isinstance(test, str) and is_hub_id(test) else test
    prefix = f"{Path(shown).stem}-test" if isinstance(test, str | Path) else "test"
    return problems_in(source, shown, prefix=prefix, problem=problem, answer=answer)


def is_hub_id(name: str) -> bool:
    parts = name.split("/")
    return len(parts) == 2 and all(parts) and not Path(name).exists() and not name.startswith((".", "~", "/"))


def complete(splits: Mapping[str, Sequence[Problem]]) -> dict[str, list[Problem]]:
    """Splits with those that are missing cut from train, and no prompt in two of them."""
    found = {split: list(problems) for split, problems in splits.items() if split}
    rows = splits.get("", splits.get("train"))
    if rows is None:
        return found
    held_out = {problem.text for split, problems in found.items() if split != "train" for problem in problems}
    shares = {split: percent for split, percent in _BY_HASH.items() if split == "train" or split not in found}
    shares["train"] = 100 - sum(percent for split, percent in shares.items() if split != "train")
    # Another hash than the generated tasks': their train prompts, stored in a file, would all fall to train again.
    cut: dict[str, list[Problem]] = {split: [] for split in shares}
    for problem in rows:
        if problem.text not in held_out:
            cut[share_of(f"stored\n{problem.text}", shares)].append(problem)
    if "validation" in found and "test" in found:  # both its own: one prompt must not be in both
        asked = {problem.text for problem in found["test"]}
        found["validation"] = [problem for problem in found["validation"] if problem.text not in asked]
    return found | cut


def hub_task(
    repository: str,
    config: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    problem: str | None = None,
    answer: str | None = None,
    test: Any = None,
) -> StoredTask:
    """A data set of the Hub as a task, see :func:`from_source`."""
    found = from_hub(repository, config, split, revision)
    task = from_source(found, problem, answer, test=test, name=repository)
    task.in_memory = not isinstance(test, str | Path | None)
    return task
