"""Two agents discuss a question until they agree (paper section 5.1)."""

from peerloom.recipes.coral.recipe import RECIPE

__all__ = ["RECIPE"]
