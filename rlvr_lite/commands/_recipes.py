"""Recipes."""

from __future__ import annotations

from typing import Annotated

import tyro

__all__ = ["recipes"]


def recipes(name: Annotated[str | None, tyro.conf.Positional] = None) -> None:
    """List the recipes, or show one with every deviation from the paper's protocol.

    Args:
        name: of a recipe, or the path of a TOML file.
    """
    from rlvr_lite.recipes import list_recipes, read_recipe

    print(list_recipes() if name is None else read_recipe(name))
