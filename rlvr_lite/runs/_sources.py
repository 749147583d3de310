"""The source of code that a user hands in, as a run records it: another source is another run."""

from __future__ import annotations

import functools
import hashlib
import inspect
from types import CodeType
from typing import Any

__all__ = ["source_hash", "written_as"]


def written_as(thing: Any) -> Any:
    """The function or class whose source an object is, below partials and instances."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    return thing if inspect.isroutine(thing) or inspect.isclass(thing) else type(thing)


def source_hash(thing: Any) -> str:
    """First 16 hexadecimal digits of SHA-256 over the source of a function or class, and over plain values bound to it."""
    bound: list[Any] = []
    inner, thing = thing, written_as(thing)
    while isinstance(inner, functools.partial):
        bound += [inner.args, tuple(sorted(inner.keywords.items()))]
        inner = inner.func
    if inner is not thing:
        bound.append(tuple(sorted(vars(inner).items())) if hasattr(inner, "__dict__") else ())
    code = getattr(thing, "__code__", None)
    if code is not None:
        bound += [thing.__defaults__, tuple(sorted((thing.__kwdefaults__ or {}).items()))]
        bound += [cell.cell_contents for cell in thing.__closure__ or ()]
    try:
        text = inspect.getsource(thing)
    except (OSError, TypeError):  # typed into an interpreter
        text = thing.__qualname__ if code is None else _plain(code)
    return hashlib.sha256(f"{text}\n{_plain(tuple(bound))}".encode()).hexdigest()[:16]


def _plain(value: Any) -> str:
    """A value as text if it is the same text in every process and at every time, its type otherwise."""
    if isinstance(value, str | int | float | bool | None):
        return repr(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_plain, value))}]"
    if isinstance(value, CodeType):
        return f"{value.co_code.hex()} {value.co_names} {_plain(value.co_consts)}"
    return type(value).__qualname__
