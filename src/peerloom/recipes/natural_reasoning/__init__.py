"""Web documents become questions that take reasoning, with answers (paper section 5.2)."""

from peerloom.recipes.natural_reasoning.recipe import RECIPE

__all__ = ["RECIPE"]
