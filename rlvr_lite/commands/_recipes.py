"""Recipes, and how one becomes the default of other commands."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import tyro

__all__ = ["recipes", "with_recipe"]


_OPTION = "--recipe"


def recipes(name: Annotated[str | None, tyro.conf.Positional] = None) -> None:
    """List the recipes, or show one with every deviation from the paper's protocol.

    Args:
        name: of a recipe, or the path of a TOML file.
    """
    from rlvr_lite.recipes import list_recipes, read_recipe

    print(list_recipes() if name is None else read_recipe(name))


def with_recipe(commands: Mapping[str, Callable[..., Any]], arguments: Sequence[str]) -> dict[str, Callable[..., Any]]:
    """The commands, those with a configuration starting from the recipe that the arguments name, if they name one."""
    name = _named(arguments)
    if name is None:
        return dict(commands)
    from rlvr_lite.recipes import recipe

    config = recipe(name)
    return {title: _starting_from(command, config) for title, command in commands.items()}


def _named(arguments: Sequence[str]) -> str | None:
    for position, argument in enumerate(arguments):
        if argument == _OPTION:
            return next(iter(arguments[position + 1 :]), None)
        if argument.startswith(f"{_OPTION}="):
            return argument.partition("=")[2]
    return None


def _starting_from(command: Callable[..., Any], config: Any) -> Callable[..., Any]:
    """A command whose ``config`` has this default."""
    signature = inspect.signature(command)
    if "recipe" not in signature.parameters:
        return command

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> Any:
        return command(*args, **options)

    found = [p.replace(default=config) if p.name == "config" else p for p in signature.parameters.values()]
    run.__signature__ = signature.replace(parameters=found)  # type: ignore[attr-defined]
    return run
