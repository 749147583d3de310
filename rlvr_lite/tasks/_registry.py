"""Tasks by name, by path, or as they come."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from rlvr_lite.errors import UserError, unknown_name
from rlvr_lite.table import Table
from rlvr_lite.tasks._chain_sum import ChainSum
from rlvr_lite.tasks._generated import GeneratedTask
from rlvr_lite.tasks._gym import GymTask
from rlvr_lite.tasks._linear_equation import LinearEquation
from rlvr_lite.tasks._stored import NAMED, from_dataset, from_jsonl, named
from rlvr_lite.tasks._task import Task

__all__ = ["get", "list_tasks"]

_GENERATED: dict[str, type[GeneratedTask]] = {"chain-sum": ChainSum, "linear-equation": LinearEquation}


def get(task: Any, **options: Any) -> Task:
    """The task of a name, a path or a data set.

    Args:
        task: a name of :func:`list_tasks`; ``gym:NAME`` for a task of reasoning-gym; the path of a ``.jsonl`` file
            with a problem and an answer column; a ``datasets.Dataset`` with such columns; or a :class:`Task`.
        **options: dials of a generated task; ``problem=`` and ``answer=`` name the columns of a file or data set.

    Raises:
        UserError: an unknown name (offers the nearest), an option the task does not have, a file that is missing,
            empty, unreadable (names the line) or without answers, or a data set that cannot be downloaded.
    """
    if isinstance(task, Task):
        return _call(f"task {task.name}", lambda: task, options)
    if hasattr(task, "column_names") and not isinstance(task, str):
        if isinstance(task.column_names, dict):
            raise UserError(f"the data set holds the splits {', '.join(task)}: pass one, such as dataset['train']")
        return _call("a data set", partial(from_dataset, task), options)
    name = str(task)
    if name in _GENERATED:
        return _call(f"task {name}", _GENERATED[name], options)
    if name in NAMED:
        return _call(f"task {name}", partial(named, name), options)
    if name.startswith("gym:"):
        return GymTask(name.removeprefix("gym:"), **options)
    path = Path(name)
    if path.suffix == ".jsonl":
        return _call(str(path), partial(from_jsonl, path), options)
    if path.exists() or len(path.parts) > 1:
        raise UserError(
            f"task {name} is not a .jsonl file: write one JSON object a line, or pass a datasets.Dataset in Python"
        )
    raise unknown_name("task", name, [*_GENERATED, *NAMED])


def _call(owner: str, make: Callable[..., Task], options: dict[str, Any]) -> Task:
    known = list(inspect.signature(make).parameters)
    for option in options:
        if option not in known:
            if not known:
                raise UserError(f"{owner} has no options, got {option}: leave it out")
            raise unknown_name(f"option of {owner}", option, known)
    return make(**options)


def list_tasks() -> Table:
    """What :func:`get` knows by name, with the dials and their defaults."""
    rows = []
    for name, kind in _GENERATED.items():
        dials = ", ".join(f"{p.name}={p.default}" for p in inspect.signature(kind).parameters.values() if p.default)
        about = (kind.__doc__ or "").partition("\n")[0].replace("``", "")
        rows.append({"task": name, "about": about, "from": "generated", "dials": dials, "splits": len(kind.splits)})
    for name, entry in NAMED.items():
        rows.append({"task": name, "about": entry.about, "from": "RLVR_LITE_DATA or the Hub", "splits": 3})
    rows.append({"task": "gym:NAME", "about": "Any task of reasoning-gym.", "from": "extra: gym", "splits": 3})
    rows.append({"task": "FILE.jsonl", "about": "Your own problem and answer columns.", "from": "file", "splits": 3})
    return Table.of(rows, title="Tasks")
