"""No public name is without words: what it is, its parameters and fields, and the errors it raises itself.

A name is public if its module lists it in ``__all__``, and so are the attributes of a public class that have no leading
underscore. Of the package's own names every parameter is explained, those of functions in a section ``Args``; in the rooms
below, a section that is there lists all, and a short function may speak in prose. A method that fulfils the contract of a
base class may leave its parameters to the docstring there.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rlvr_lite

PACKAGE = Path(rlvr_lite.__file__).parent
ROOMS = [
    "rlvr_lite",
    *(f"rlvr_lite.{m.name}" for m in pkgutil.iter_modules([str(PACKAGE)]) if m.name[0] != "_"),
    *(f"rlvr_lite.analysis.{name}" for name in rlvr_lite.analysis.__all__),
]
_NO_FACE = {"rlvr_lite.commands"}  # tyro shows these docstrings; the tests of the command line read them


def public(module: str) -> Iterator[tuple[str, Any]]:
    """The public names of a module and what they stand for, submodules apart."""
    found = importlib.import_module(module)
    for name in getattr(found, "__all__", ()):
        value = getattr(found, name)
        if not inspect.ismodule(value):
            yield name, value


def callables(module: str) -> dict[str, Any]:
    """Public functions, classes and methods of our own by their dotted name."""
    found: dict[str, Any] = {}
    for name, value in public(module):
        if inspect.isclass(value) and value.__module__.startswith("rlvr_lite"):
            found[name] = value
            for member, raw in vars(value).items():
                function = raw.fget if isinstance(raw, property) else getattr(raw, "__func__", raw)
                if not member.startswith("_") and inspect.isfunction(function) and function.__name__ == member:
                    found[f"{name}.{member}"] = function
        elif inspect.isfunction(value) and value.__module__.startswith("rlvr_lite"):
            found[name] = value
    return found


def entries(doc: str, title: str) -> dict[str, str]:
    """The entries of a section of a docstring by name: ``Args``, ``Attributes`` or ``Raises``."""
    section = re.search(rf"^{title}:\n((?:(?:[ ].*)?\n)*)", f"{doc}\n", re.MULTILINE)
    lines = textwrap.dedent(section[1]) if section else ""
    found = re.findall(r"^([\w*`]+(?:, [\w*`]+)*): *(.*)$", lines, re.MULTILINE)
    return {name.strip("*`"): words for names, words in found for name in names.split(", ")}


def undocumented(name: str, value: Any, owner: type | None = None, *, strict: bool = True) -> list[str]:
    """What the docstring of a function or class leaves out; unless ``strict``, prose need not name every parameter."""
    doc = inspect.getdoc(value) if "__doc__" not in vars(value) else inspect.cleandoc(value.__doc__ or "")
    if not doc:
        return [f"{name} has no docstring"]
    missing = []
    if inspect.isclass(value):
        given = [] if getattr(value, "_is_protocol", False) else _fields(value)
        told = entries(doc, "Attributes") | entries(doc, "Args")
        given = given if strict or told else []
    else:
        given = [p.name for p in inspect.signature(value).parameters.values() if p.name not in ("self", "cls")]
        given = [] if _promised(owner, value.__name__) else given
        told = entries(doc, "Args") or dict.fromkeys(re.findall(r"``(\w+)``", doc) if strict else given, "in prose")
        if _raises(value) and "UserError" not in (entries(doc, "Raises") if strict else doc):
            missing.append(f"{name} does not say when it raises UserError")
    missing += [f"{name} does not explain {p}" for p in given if not told.get(p)]
    return missing


def _fields(cls: type) -> list[str]:
    """What a class is made from: the fields of a dataclass, or the arguments of its own ``__init__``."""
    if dataclasses.is_dataclass(cls):
        return [field.name for field in dataclasses.fields(cls) if field.name[0] != "_" and field.init]
    if "__init__" in vars(cls) and not issubclass(cls, Exception):
        return [name for name in inspect.signature(cls).parameters if name[0] != "_"]
    return []


def _promised(owner: type | None, method: str) -> bool:
    """Whether a base class already says what the method takes."""
    return owner is not None and any(hasattr(base, method) for base in owner.__bases__)


def _raises(function: Any) -> bool:
    """Whether a ``UserError`` is raised in the body itself."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    raised = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)]
    return any(ast.unparse(call.func) in ("UserError", "unknown_name") for call in raised)


@pytest.mark.parametrize("module", [room for room in ROOMS if room not in _NO_FACE])
def test_every_public_name_is_explained(module):
    found = callables(module)
    owners = {name: found.get(name.partition(".")[0]) if "." in name else None for name in found}
    strict = module == "rlvr_lite"
    missing = [line for name, value in found.items() for line in undocumented(name, value, owners[name], strict=strict)]
    assert not missing, "\n".join(missing)


def test_the_calls_of_the_package_list_every_argument():
    """The first names that a reader meets are held to a section, not to prose."""
    for name, value in public("rlvr_lite"):
        if inspect.isfunction(value) and inspect.signature(value).parameters:
            told = entries(inspect.getdoc(value) or "", "Args")
            assert set(told) == set(inspect.signature(value).parameters), name
        elif inspect.isclass(value) and dataclasses.is_dataclass(value):
            told = entries(inspect.getdoc(value) or "", "Attributes")
            assert set(told) >= set(_fields(value)), name


@pytest.mark.parametrize("module", ROOMS)
def test_every_module_says_what_it_is(module):
    assert importlib.import_module(module).__doc__


@pytest.mark.parametrize("module", [room for room in ROOMS if (PACKAGE.parent / room.replace(".", "/")).is_dir()])
def test_every_public_constant_has_a_word(module):
    constants = {n for n, v in public(module) if not (inspect.isclass(v) or inspect.isfunction(v))} - _borrowed(module)
    told: set[str] = set()
    for path in (PACKAGE.parent / module.replace(".", "/")).glob("*.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        for node in ast.parse("\n".join(lines)).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            above = lines[node.lineno - 2].startswith("#") if node.lineno > 1 else False
            told |= {t.id for t in targets if isinstance(t, ast.Name) and (above or "  #" in lines[node.lineno - 1])}
    assert constants <= told, f"no comment above {sorted(constants - told)}"


def _borrowed(module: str) -> set[str]:
    """Names that a room takes over from another one, where they have their word."""
    path = PACKAGE.parent / module.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    nodes = [n for n in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(n, ast.ImportFrom)]
    return {alias.name for node in nodes if not (node.module or "").startswith(module) for alias in node.names}


def _good(first: int, *, second: str = "") -> None:
    """Do it.

    Args:
        first: how often.
        second: with what,
            and more: of it.
    """


def _bad(first: int, *, second: str = "") -> None:
    """Do it.

    Args:
        first: how often.
    """
    from rlvr_lite.errors import UserError

    raise UserError("no")


def test_the_check_sees_what_is_missing():
    assert undocumented("good", _good) == []
    assert undocumented("bad", _bad) == [
        "bad does not say when it raises UserError",
        "bad does not explain second",
    ]
    assert entries(inspect.getdoc(_good) or "", "Args") == {"first": "how often.", "second": "with what,"}
