"""Tasks by name, by path, or as they come."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rlvr_lite.errors import UserError, unknown_name
from rlvr_lite.table import Table
from rlvr_lite.tasks._benchmarks import BENCHMARKS, pinned
from rlvr_lite.tasks._chain_sum import ChainSum
from rlvr_lite.tasks._generated import GeneratedTask
from rlvr_lite.tasks._gym import GymTask
from rlvr_lite.tasks._linear_equation import LinearEquation
from rlvr_lite.tasks._named import NAMED, named
from rlvr_lite.tasks._read import SUFFIXES, is_source
from rlvr_lite.tasks._stored import from_source, hub_task, is_hub_id
from rlvr_lite.tasks._task import Task

__all__ = ["get", "list_tasks", "register"]

_GENERATED: dict[str, type[GeneratedTask]] = {"chain-sum": ChainSum, "linear-equation": LinearEquation}
_REGISTERED: dict[str, Callable[..., Task]] = {}


def register(name: str, factory: Callable[..., Task]) -> None:
    """Let :func:`get`, and with it everything that takes a task, know one by name.

    Args:
        name: short, without ``/`` and ``:``.
        factory: makes the task, such as its class; what it takes are the task's options.

    Raises:
        UserError: the name is taken by another task, or cannot be one.
    """
    if not name or any(sign in name for sign in "/:=,") or Path(name).suffix in SUFFIXES:
        raise UserError(f"{name!r} cannot be a task's name: take letters, digits and hyphens")
    taken = {**_GENERATED, **NAMED, **BENCHMARKS}
    if name in taken or _REGISTERED.get(name, factory) is not factory:
        raise UserError(f"there is a task {name} already: choose another name")
    _REGISTERED[name] = factory


def get(task: Any, **options: Any) -> Task:
    """The task of a name, a path or rows of any kind.

    Args:
        task: a name of :func:`list_tasks` or of a benchmark; ``gym:NAME`` for a task of reasoning-gym; the path of a
            JSONL, JSON, CSV, TSV or Parquet file, or of a folder that ``save_to_disk`` wrote; ``owner/name`` for a data
            set of the Hugging Face Hub; a ``datasets.Dataset`` or ``DatasetDict``; a pandas ``DataFrame``; a list of
            dicts; a mapping from splits to any of these; or a :class:`Task`.
        **options: of a task its own; of rows ``problem`` and ``answer`` (names of columns), ``split`` (take only this
            one) and ``test`` (test problems of their own); of the Hub ``config`` and ``revision`` besides.

    Raises:
        UserError: an unknown name (offers the nearest), an option that the task does not have, or rows that are missing,
            empty or damaged (names the line), or that cannot be downloaded.
    """
    if isinstance(task, Task):
        return _call(f"task {task.name}", lambda: task, options)
    if is_source(task):
        return _call("a data set", partial(from_source, task), options)
    if not isinstance(task, str | Path):
        raise UserError(
            f"a {type(task).__name__} is no task: give a name, a path, a datasets.Dataset, a DataFrame or a list of dicts"
        )
    name = str(task)
    for known in (_GENERATED, _REGISTERED):
        if name in known:
            return _call(f"task {name}", known[name], options)
    if name in NAMED:
        return _call(f"task {name}", partial(named, name), options)
    if name in BENCHMARKS:
        return _call(f"task {name}", partial(pinned, name), options)
    if name.startswith("gym:"):
        return GymTask(name.removeprefix("gym:"), **options)
    path = Path(name)
    if path.suffix.lower() in SUFFIXES or _is_folder(path):
        return _call(name, partial(from_source, path), options)
    if is_hub_id(name):
        return _call(name, partial(hub_task, name), options)
    if len(path.parts) > 1 or path.suffix or name.startswith("."):
        raise UserError(
            f"task {name[:200]!r} is no file that can be read: take {', '.join(SUFFIXES)}, or pass a datasets.Dataset, a "
            "DataFrame or a list of dicts in Python"
        )
    raise unknown_name("task", name, [*_GENERATED, *NAMED, *_REGISTERED, *BENCHMARKS])


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _call(owner: str, make: Callable[..., Task], options: Mapping[str, Any]) -> Task:
    parameters = inspect.signature(make).parameters
    known = [name for name, parameter in parameters.items() if name != "name" or owner != "a data set"]
    free = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for option in () if free else options:
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
    for name, factory in _REGISTERED.items():
        about = (inspect.getdoc(factory) or "").partition("\n")[0]
        rows.append({"task": name, "about": about, "from": "registered", "splits": None})
    rows.append({"task": "gym:NAME", "about": "Any task of reasoning-gym.", "from": "extra: gym", "splits": 3})
    kinds = f"FILE ({', '.join(suffix[1:] for suffix in SUFFIXES)})"
    rows.append({"task": kinds, "about": "Your own problem and answer columns.", "from": "file", "splits": 3})
    rows.append({"task": "OWNER/NAME", "about": "A data set of the Hugging Face Hub.", "from": "Hub", "splits": 3})
    return Table.of(rows, title="Tasks")
