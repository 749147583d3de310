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
    from rlvr_lite.planning import Cost, plan_without_task
    from rlvr_lite.recipes import Recipe, list_recipes, read_recipe
    from rlvr_lite.table import Table

    def cost(one: Recipe) -> Cost:
        return plan_without_task(one.config, gpu or (f"{one.memory_gib:g}GiB" if one.memory_gib else None)).cost

    if name is not None:
        found = read_recipe(name)
        one_run = cost(found)
        print(f"{found}\nOne run of it: {one_run}.")
        return
    listed = list_recipes()
    costs = {row["recipe"]: cost(read_recipe(row["recipe"])) for row in listed}
    print(listed)
    note = f"Hours {'of ' + gpu if gpu else 'of a card of that memory'}: {next(iter(costs.values())).source}."
    print(Table.of([{"recipe": one} | found.cells() for one, found in costs.items()], title="One run", note=note))
