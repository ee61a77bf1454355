"""Recipes: workflows with their agents, prompts and defaults, ready to run."""

from peerloom.recipes.base import Recipe, find, names

__all__ = ["Recipe", "find", "names"]
