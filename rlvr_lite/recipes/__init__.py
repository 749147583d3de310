"""Recipes: whole protocols as TOML files, each deviation from the one it stands on listed beside it."""

from rlvr_lite.recipes._recipe import Deviation, Recipe, adapter_fields, for_method, list_recipes, read_recipe, recipe

__all__ = ["Deviation", "Recipe", "adapter_fields", "for_method", "list_recipes", "read_recipe", "recipe"]
