"""Recipes."""

from __future__ import annotations

from typing import Annotated

import tyro

__all__ = ["recipes"]


def recipes(name: Annotated[str | None, tyro.conf.Positional] = None, *, gpu: str | None = None) -> None:
    """List the recipes, or show one with every deviation from the paper's protocol; both with what one run takes.

    Args:
        name: of a recipe, or the path of a TOML file.
        gpu: a card that hours are given for; by default one with the memory that a recipe is written for.
    """
    from rlvr_lite.planning import plan_without_task
    from rlvr_lite.recipes import list_recipes, read_recipe

    names = [row["recipe"] for row in list_recipes()] if name is None else [name]
    found = [read_recipe(one) for one in names]
    print(list_recipes() if name is None else found[0])
    for one in found:
        card = gpu or (f"{one.memory_gib:g}GiB" if one.memory_gib else None)
        print(f"One run of {one.name}: {plan_without_task(one.config, card).cost}.")
