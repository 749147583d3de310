"""A task whose problems came in memory, kept beside the runs that are trained on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from rlvr_lite.config import Option
from rlvr_lite.errors import UserError
from rlvr_lite.records import atomic_directory, damage, read_json, text_lines, write_json, write_text
from rlvr_lite.tasks._registry import get
from rlvr_lite.tasks._stored import StoredTask
from rlvr_lite.tasks._task import Problem, Task

__all__ = ["kept", "recall", "save"]

_FOLDER = "tasks"
_FACTS = "task.json"
_UP = 4  # a run of a study lies so far below the folder of the study


def save(task: StoredTask, directory: Path) -> None:
    """Keep a task's problems in ``directory/tasks/NAME``, with a hash of each file; once for a study and all its runs.

    Raises:
        UserError: a column holds what JSON cannot.
    """
    if _home(task.name, directory) is not None:
        return
    home = directory / _FOLDER / task.name
    texts = {}
    for split in task.splits:
        try:
            lines = [
                json.dumps({"id": p.id, "prompt": p.prompt, "answer": p.answer, "columns": p.columns}, allow_nan=False)
                for p in task.stored(split)
            ]
        except (TypeError, ValueError) as error:
            raise UserError(
                f"task {task.name} cannot be stored ({error}): leave out the columns that are neither text, numbers nor "
                "lists of these"
            ) from error
        texts[split] = "".join(line + "\n" for line in lines)
    with atomic_directory(home) as folder:
        for split, text in texts.items():
            write_text(folder / f"{split}.jsonl", text)
        facts = {
            "splits": list(task.splits),
            "max_completion_length": task.max_completion_length,
            "answer": task.answer,
        }
        write_json(folder / _FACTS, facts)


def recall(name: str, options: Mapping[str, Option] | None = None, *, near: Path | None = None) -> Task:
    """The task that a run was trained on: a copy kept in its folder or the study's, else what :func:`get` finds.

    Args:
        name: as the run's configuration has it.
        options: as the run's configuration has them.
        near: the folder of the run or study.

    Raises:
        UserError: it is not there any more, or the copy is damaged.
    """
    return kept(name, near) or get(name, **dict(options or {}))


def kept(name: str, near: Path | None) -> StoredTask | None:
    """The copy of a task in a run's folder or one above it; ``None`` if there is none."""
    home = None if near is None else _home(name, near)
    return None if home is None else _load(home, name)


def _home(name: str, near: Path) -> Path | None:
    for folder in (near, *near.absolute().parents[:_UP]):
        home = folder / _FOLDER / name
        if (home / _FACTS).is_file():
            return home
    return None


def _load(home: Path, name: str) -> StoredTask:
    broken = damage(home)
    if broken:
        raise UserError(f"the copy of task {name} is damaged ({broken}): pass the data set again with another out")
    facts = read_json(home / _FACTS)
    splits = {}
    for split in facts["splits"]:
        rows = (json.loads(line) for _, line in text_lines(home / f"{split}.jsonl"))
        splits[split] = [
            Problem(
                r["id"], r["prompt"] if isinstance(r["prompt"], str) else tuple(r["prompt"]), r["answer"], r["columns"]
            )
            for r in rows
        ]
    return StoredTask(name, splits, facts["max_completion_length"], answer=facts["answer"], in_memory=True)
