"""Recipes: workflows with their agents, prompts and defaults, ready to run."""

from peerloom.recipes.base import RECIPES, Recipe, find

__all__ = ["RECIPES", "Recipe", "find"]
