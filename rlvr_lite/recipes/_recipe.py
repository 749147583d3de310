"""Recipes: whole protocols as TOML files, each deviation from the one it stands on listed beside it.

A recipe has a ``[config]`` of ``RunConfig`` fields, or it ``extends`` another one and differs from it in nothing but its
``[[deviations]]``, so a variant cannot depart from the paper without saying where and why.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from rlvr_lite import resolve
from rlvr_lite.config import RunConfig, replace_fields
from rlvr_lite.errors import UserError, unknown_name
from rlvr_lite.records import read_text
from rlvr_lite.table import Table

__all__ = ["Deviation", "Recipe", "list_recipes", "read_recipe", "recipe"]

_SUFFIX = ".toml"
_KEYS = ("title", "memory_gib", "notes", "extends", "config", "deviations", "methods")


@dataclass(frozen=True)
class Deviation:
    """One field in which a recipe departs from the one that it extends.

    Attributes:
        field: of ``RunConfig``.
        paper: its value there.
        here: its value here.
        why: the reason.
    """

    field: str
    paper: Any
    here: Any
    why: str


@dataclass(frozen=True)
class Recipe:
    """A whole protocol.

    Attributes:
        name: by which it is asked for.
        title: what it is.
        config: the run.
        memory_gib: of the card that it is written for.
        notes: what a configuration cannot say, conflicts between the paper and its code among them.
        extends: the recipe it departs from; empty if it is one of the paper's own.
        deviations: all fields in which it departs.
        methods: fields of ``RunConfig`` that the protocol gives to one method alone, by its name.
    """

    name: str
    title: str
    config: RunConfig
    memory_gib: float
    notes: tuple[str, ...] = ()
    extends: str = ""
    deviations: tuple[Deviation, ...] = ()
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def table(self) -> Table:
        """The deviations, a row each; without any, the fields that are set."""
        default = dataclasses.asdict(RunConfig())
        if self.deviations:
            rows = [dataclasses.asdict(deviation) for deviation in self.deviations]
        else:
            own = dataclasses.asdict(self.config)
            rows = [{"field": name, "here": str(value)} for name, value in own.items() if value != default[name]]
        return Table.of(rows, title=self.title, note="\n".join(f"- {note}" for note in self.notes))

    def __str__(self) -> str:
        return str(self.table)


def recipe(name: str | Path, method: str | None = None) -> RunConfig:
    """The configuration of a recipe, for ``train(config=...)`` and ``compare(..., config=...)``.

    Args:
        name: one of :func:`list_recipes`, or the path of a TOML file.
        method: another method than the recipe's; what that one does not use of rank, alpha, targets and options is left
            out.

    Raises:
        UserError: there is no such recipe, or its file says something that a run does not know.

    >>> recipe("paper-1.5b").learning_rate
    1e-05
    """
    found = read_recipe(name)
    return resolve.merge({"method": method, **found.methods.get(method or "", {})}, found.config)


def read_recipe(name: str | Path) -> Recipe:
    """A recipe with its deviations and notes; see :func:`recipe`.

    Raises:
        UserError: there is none of that name, or the file is no recipe.
    """
    text, label = _text(str(name))
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"recipe {label} is not TOML: {error}") from error
    for key in values:
        if key not in _KEYS:
            raise unknown_name(f"key of recipe {label}", key, _KEYS)
    try:
        return _extended(label, values) if "extends" in values else _own(label, values)
    except UserError as error:
        raise error if label in str(error) else UserError(f"recipe {label}: {error}") from error
    except (TypeError, ValueError, AttributeError) as error:  # a value of another type than its field's
        raise UserError(f"recipe {label} has a value of the wrong type: {error}") from error


def list_recipes() -> Table:
    """The recipes that come with the package."""
    found = [read_recipe(name) for name in _packaged()]
    rows = [
        {
            "recipe": one.name,
            "about": one.title,
            "GiB": one.memory_gib,
            "deviates in": ", ".join(deviation.field for deviation in one.deviations) or None,
        }
        for one in found
    ]
    return Table.of(
        rows, title="Recipes", note="rlvr-lite recipes NAME shows one; rlvr-lite train --recipe NAME runs it"
    )


def _packaged() -> list[str]:
    return sorted(item.name.removesuffix(_SUFFIX) for item in _folder().iterdir() if item.name.endswith(_SUFFIX))


def _folder() -> Any:
    return files("rlvr_lite.recipes")


def _text(name: str) -> tuple[str, str]:
    """Text and label of a packaged recipe or of a file."""
    if name in (known := _packaged()):
        return (_folder() / f"{name}{_SUFFIX}").read_text(encoding="utf-8"), name
    path = Path(name)
    if path.suffix != _SUFFIX:
        raise unknown_name("recipe", name, known)
    try:
        return read_text(path), path.stem
    except UserError as error:
        raise UserError(
            f"cannot read recipe {path}: give the path of a TOML file, or one of {', '.join(known)}"
        ) from error


def _own(name: str, values: Mapping[str, Any]) -> Recipe:
    if "config" not in values:
        raise UserError(f"recipe {name} has no [config]: add one, or extends = 'paper-1.5b'")
    if "deviations" in values:
        raise UserError(f"recipe {name} deviates from nothing: add extends = 'paper-1.5b', or drop [[deviations]]")
    config = replace_fields(RunConfig(), values["config"])
    of_methods = _of_methods(values, config)
    return Recipe(
        name,
        values.get("title", name),
        config,
        values.get("memory_gib", 0),
        tuple(values.get("notes", ())),
        methods=of_methods,
    )


def _of_methods(values: Mapping[str, Any], config: RunConfig) -> dict[str, dict[str, Any]]:
    """What a protocol gives to single methods, each checked as a run of that method."""
    found = {method: dict(fields) for method, fields in values.get("methods", {}).items()}
    for method, fields in found.items():
        resolve.check(resolve.merge({"method": method, **fields}, config))
    return found


def _extended(name: str, values: Mapping[str, Any]) -> Recipe:
    parent = read_recipe(values["extends"])
    if "config" in values:
        raise UserError(f"recipe {name} extends {parent.name}: write what differs as [[deviations]], not as [config]")
    deviations = tuple(_deviation(name, parent, entry) for entry in values.get("deviations", ()))
    config = replace_fields(parent.config, {deviation.field: deviation.here for deviation in deviations})
    notes = (*parent.notes, *values.get("notes", ()))
    memory = values.get("memory_gib", parent.memory_gib)
    of_methods = {**parent.methods, **_of_methods(values, config)}
    return Recipe(name, values.get("title", name), config, memory, notes, parent.name, deviations, of_methods)


def _deviation(name: str, parent: Recipe, entry: Mapping[str, Any]) -> Deviation:
    wanted = [f.name for f in dataclasses.fields(Deviation)]
    if sorted(entry) != sorted(wanted):
        raise UserError(f"a deviation of recipe {name} has {', '.join(entry)}: give it {', '.join(wanted)}")
    found = Deviation(**entry)
    before = dataclasses.asdict(parent.config)
    if found.field not in before:
        raise unknown_name("option", found.field, before)
    value = list(before[found.field]) if isinstance(before[found.field], tuple) else before[found.field]
    if value != found.paper:
        raise UserError(
            f"recipe {name} says {found.field} was {found.paper!r}, but {parent.name} has {value!r}: mend it"
        )
    return found
