"""The types of a configuration's fields: taken as they are declared, or refused in one line."""

from __future__ import annotations

import functools
import inspect
import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from numbers import Integral, Real
from pathlib import Path
from types import SimpleNamespace, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from rlvr_lite.errors import UserError, unknown_name

__all__ = ["as_path", "checked", "hints", "take_types"]

F = TypeVar("F", bound=Callable[..., Any])


@functools.cache
def hints(cls: Any) -> dict[str, Any]:
    """The type of every field of a configuration."""
    return get_type_hints(cls)


@functools.cache
def _kinds(cls: Any) -> list[tuple[str, Any, bool, Any]]:
    """Name, type, whether ``None`` is one of its values, and the type besides ``None``, of every field."""
    found = []
    for name, hint in hints(cls).items():
        optional = type(None) in get_args(hint)
        found.append((name, hint, optional, get_args(hint)[0] if optional else hint))
    return found


def take_types(config: Any) -> None:
    """Give every field of a new configuration the type it is declared with, or refuse its value in one line."""
    for name, hint, optional, kind in _kinds(type(config)):  # type: ignore[arg-type]
        value = getattr(config, name)
        if (optional and value is None) or (kind is not float and type(value) is kind):
            continue
        typed = _typed(name, hint, value)
        if typed is not value:
            object.__setattr__(config, name, typed)


def as_path(name: str, value: Any) -> Path:
    """The path that a caller gave as ``name``.

    Raises:
        UserError: it is none.
    """
    if not isinstance(value, str | os.PathLike) or not str(value) or "\0" in str(value):
        raise UserError(f"{name} must be the path of a folder, got {value!r}")
    return Path(value)


def checked(function: F) -> F:
    """A function that refuses, in one line, an argument that is not of the plain type or path which its signature declares.

    NumPy's numbers arrive as plain ones; parameters of other types are the function's own affair.
    """
    declared = inspect.get_annotations(function)
    signature = inspect.signature(function)

    @functools.cache
    def kinds() -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in signature.parameters:
            with suppress(NameError, KeyError):  # what only type checkers import, and what says no type
                alone = SimpleNamespace(__annotations__={name: declared[name]})
                found |= get_type_hints(alone, globalns=function.__globals__)
        return {name: hint for name, hint in found.items() if _of(hint) <= _CHECKED or _is_words(hint)}

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        try:
            given = signature.bind(*args, **options)
        except TypeError:
            return function(*args, **options)  # says it in Python's own words
        for name, hint in kinds().items():
            value = given.arguments.get(name)
            if name not in given.arguments or (value is None and type(None) in get_args(hint)):
                continue
            if isinstance(value, str) and _is_words(hint):  # the function has a message of its own
                continue
            given.arguments[name] = as_path(name, value) if Path in _of(hint) else _typed(name, hint, value)
        return function(*given.args, **given.kwargs)

    return call  # type: ignore[return-value]


def _of(hint: Any) -> set[Any]:
    """The types of a union, or a type alone, without ``None``."""
    return set(get_args(hint)) - {type(None)} if get_origin(hint) in (Union, UnionType) else {hint}


def _is_words(hint: Any) -> bool:
    return all(get_origin(kind) is Literal for kind in _of(hint))


def _typed(name: str, hint: Any, value: Any) -> Any:
    """``value`` as ``hint`` declares it: lists are tuples, one item stands for a tuple of it, NumPy's numbers are plain."""
    kind = get_args(hint)[0] if type(None) in get_args(hint) else hint
    if type(value).__module__ == "numpy" and not getattr(value, "shape", True):
        value = value.item()
    if get_origin(kind) is Literal:
        words = get_args(kind)
        if any(type(value) is type(word) and value == word for word in words):
            return value
        raise unknown_name(name, str(value), [str(word) for word in words])
    if get_origin(kind) is tuple:
        return _several(name, get_args(kind)[0], value)
    if kind in _PLAIN:
        fits, convert, what = _PLAIN[kind]
        if not fits(value):
            raise UserError(f"{name} must be {what}, got {value!r}")
        return convert(value)
    return _options(name, value)


def _is_number(value: Any) -> bool:
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


#: By type: what fits, how it is kept, and how a message names it. A bool is no number.
_PLAIN: Mapping[type, tuple[Callable[[Any], bool], Callable[[Any], Any], str]] = {
    bool: (lambda value: isinstance(value, bool), bool, "True or False"),
    int: (lambda value: isinstance(value, Integral) and not isinstance(value, bool), int, "a whole number"),
    float: (_is_number, float, "a finite number"),
    str: (lambda value: isinstance(value, str | os.PathLike), os.fspath, "text"),
}


def _several(name: str, kind: type, value: Any) -> tuple[Any, ...]:
    if isinstance(value, str):
        value = [word.strip() for word in value.split(",") if word.strip()]
    if not isinstance(value, list | tuple):
        value = [value]
    return tuple(_typed(f"an item of {name}", kind, item) for item in value)


def _options(name: str, value: Any) -> dict[str, Any]:
    """Options by name, each plain text, a number, True or False, or several of these."""
    if not isinstance(value, Mapping):
        raise UserError(f"{name} must be options by name, such as {{'ratio': 16}}, got {value!r}")
    found: dict[str, Any] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise UserError(f"{name} must be options by name, such as {{'ratio': 16}}, got {key!r} for a name")
        label = f"{key} of {name}"
        found[key] = tuple(_option(label, i) for i in item) if isinstance(item, list | tuple) else _option(label, item)
    return found


def _option(name: str, value: Any) -> Any:
    if type(value).__module__ == "numpy" and not getattr(value, "shape", True):
        value = value.item()
    if isinstance(value, bool | str) or _is_number(value):
        return value
    raise UserError(f"{name} must be text, a finite number, True or False, got {value!r}")


_CHECKED = {*_PLAIN, Path}
