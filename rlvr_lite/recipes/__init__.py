"""Recipes: whole protocols as TOML files, each deviation from the one it stands on listed beside it."""

from rlvr_lite.recipes._recipe import Deviation, Recipe, list_recipes, read_recipe, recipe

__all__ = ["Deviation", "Recipe", "list_recipes", "read_recipe", "recipe"]
