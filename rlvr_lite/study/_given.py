"""What a study is handed in memory: reward functions and tasks that are code, by value, with a hash of their source."""

from __future__ import annotations

import functools
import inspect
import io
import linecache
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from rlvr_lite import resolve, rewards, tasks
from rlvr_lite.config import RunConfig
from rlvr_lite.errors import UserError, kind_and_line
from rlvr_lite.runs import written_as
from rlvr_lite.tasks import Task

__all__ = ["Given", "take_functions"]


@dataclass(frozen=True)
class Given:
    """What the trials of a study need beside their configurations.

    Attributes:
        functions: reward functions by the names that configurations have for them.
        task: the task, where it is code of the user's that no worker would find by its name.
    """

    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    task: Task | None = None

    def rewards(self, config: RunConfig) -> list[Any]:
        """The rewards of a trial: functions where there are some, names otherwise."""
        return [self.functions.get(name, name) for name in config.rewards]

    def in_memory(self, config: RunConfig, root: Path) -> Task | None:
        """The task of a trial where a name does not say it: the one that was handed in, or a copy in the study's folder."""
        return self.task or tasks.kept(config.task, root)

    def sources(self) -> dict[str, str]:
        """A hash of the source of everything here, by name."""
        return resolve.sources(self.functions, self.task)

    def pack(self) -> bytes:
        """For another process: importable functions by their path, others by value.

        Raises:
            UserError: something cannot be sent.
        """
        parts: dict[str, Any] = {f"reward function {name!r}": function for name, function in self.functions.items()}
        parts |= {f"task {self.task.name}": self.task} if self.task is not None else {}
        for what, part in parts.items():
            try:
                _load(_dump(part))
            except Exception as error:  # whatever an object's own pickling raises
                raise UserError(
                    f"{what} cannot be sent to another process ({kind_and_line(error)[:120]}): define it in a module "
                    "without open files, locks or models, or use the engine 'local'"
                ) from error
        return _dump((self, _texts([*self.functions.values(), *filter(None, [self.task])])))

    @staticmethod
    def unpack(data: bytes | None) -> Given:
        """The inverse of :meth:`pack`.

        Raises:
            UserError: a module is not to be found in this process.
        """
        if data is None:
            return Given()
        try:
            found, texts = _load(data)
        except ImportError as error:
            raise UserError(
                f"a worker cannot import {error.name or error}: put the module where all workers find it (PYTHONPATH)"
            ) from error
        for file, lines in texts.items():  # so that a hash of a source is the same here, and a traceback shows it
            if not os.path.exists(file):
                linecache.cache[file] = (sum(map(len, lines)), None, lines, file)
        assert isinstance(found, Given)
        return found

    @classmethod
    def of(cls, functions: Mapping[str, Callable[..., Any]], task: Task) -> Given:
        """Of a study's reward functions and its task."""
        return cls(functions, task if resolve.is_code(task) else None)


def _texts(things: Iterable[Any]) -> dict[str, list[str]]:
    """The files that these were written in, which a notebook's worker would not find."""
    found = {}
    for thing in map(written_as, things):
        with suppress(OSError, TypeError):
            file = inspect.getsourcefile(thing)
            if file is not None:
                found[file] = linecache.getlines(file)
    return found


def _dump(value: Any) -> bytes:
    """By value what no import finds; locks and open files, of which dill would send an unrelated copy, are refused."""
    import dill

    class Pickler(dill.Pickler):
        dispatch: ClassVar[Any] = {
            kind: how for kind, how in dill.Pickler.dispatch.items() if kind.__module__ not in ("_thread", "_io")
        }

    buffer = io.BytesIO()
    Pickler(buffer, recurse=True).dump(value)
    return buffer.getvalue()


def _load(data: bytes) -> Any:
    import dill

    return dill.loads(data)


def take_functions(value: Any, found: dict[str, Callable[..., Any]]) -> Any:
    """Rewards as a caller names them, with functions replaced by their names and put into ``found``.

    Raises:
        UserError: two functions have one name, or one has the name of a reward of the package.
    """
    if isinstance(value, list | tuple):
        return [take_functions(item, found) for item in value]
    if not callable(value):
        return value
    plain: Any = value
    while isinstance(plain, functools.partial):
        plain = plain.func
    name = getattr(plain, "__name__", type(plain).__name__)
    if value in (rewards.accuracy, rewards.format):
        return name
    if name in ("accuracy", "format", "overlong") or found.get(name, value) is not value:
        raise UserError(f"two rewards are called {name!r}: give your function a name of its own")
    found[name] = value
    return name
