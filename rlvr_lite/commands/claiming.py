"""Commands of the paper's protocol and claims, and how a recipe becomes the default of other commands."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

__all__ = ["claims", "recipes", "with_recipe"]

_OPTION = "--recipe"


def recipes(name: Annotated[str | None, tyro.conf.Positional] = None) -> None:
    """List the recipes, or show one with every deviation from the paper's protocol.

    Args:
        name: of a recipe, or the path of a TOML file.
    """
    from rlvr_lite.study import list_recipes, read_recipe

    print(list_recipes() if name is None else read_recipe(name))


def claims(
    *,
    scale: Literal["tiny", "small", "paper"] = "tiny",
    only: str | None = None,
    engine: Literal["local", "process", "ray"] = "process",
    workers: int | None = None,
    out: Path | None = None,
    quiet: bool = False,
) -> None:
    """Test the claims of arXiv 2512.23165: supported, not supported or undecided, with effect and interval.

    Args:
        scale: tiny takes under 90 minutes on two cores; the others are the same experiments on larger bases.
        only: ids of claims, separated by commas; by default all.
        engine: one run after another here, in fresh processes, or on a Ray cluster.
        workers: runs at once; by default one a GPU, or two without.
        out: directory of the studies and of claims.json and claims.md. Calling again continues.
        quiet: no progress bars.
    """
    from rlvr_lite.study import claims as run_claims

    ids = [id.strip() for id in only.split(",") if id.strip()] if only else None
    found = run_claims(scale, out=out, only=ids, engine=engine, workers=workers, progress=not quiet)
    print(found)
    print(f"written to {found.directory / 'claims.md'} and claims.json")


def with_recipe(commands: Mapping[str, Callable[..., Any]], arguments: Sequence[str]) -> dict[str, Callable[..., Any]]:
    """The commands, those with a configuration starting from the recipe that the arguments name, if they name one."""
    name = _named(arguments)
    if name is None:
        return dict(commands)
    from rlvr_lite.study import recipe

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
