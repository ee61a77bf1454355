"""Define recipes, and find them by name.

A recipe is a `Recipe` object: `RECIPE` of a package below `peerloom/recipes`, an entry point of an installed
package in the group `peerloom.recipes`, or any object at an import path.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import msgspec

from peerloom.errors import ConfigError
from peerloom.lookup.nearest import did_you_mean
from peerloom.lookup.plugins import Plugins
from peerloom.runtime.program import Program

RecipeParams = TypeVar("RecipeParams")

RECIPES = Plugins("recipe", "peerloom.recipes", "peerloom.recipes", "RECIPE")


@dataclass(frozen=True)
class Recipe(Generic[RecipeParams]):
    """A workflow with its agents, prompts and defaults, ready to run.

    `params` is a dataclass of the recipe's options, all with defaults; bounds are written as
    `Annotated[int, msgspec.Meta(ge=1)]`. `program` builds the workflow and its agents from the options.
    `sample` is a bundled JSONL file of rows to try the recipe on.
    """

    name: str
    summary: str
    params: type[RecipeParams]
    program: Callable[[RecipeParams], Program]
    sample: Path | None = None

    def build(self, params: Mapping[str, Any]) -> Program:
        """Build the program for these options and the defaults of all others.

        Raises:
            ConfigError: for an unknown option, or a value of the wrong type or out of bounds.
            WorkflowError: if the recipe's workflow is inconsistent.
        """
        known = [field.name for field in dataclasses.fields(self.params)]  # pyright: ignore[reportArgumentType] - a dataclass
        for key in params:
            if key not in known:
                nearest = did_you_mean(key, known, all_of=known)
                raise ConfigError(f"recipe {self.name} has no option {key!r}.{nearest}")
        try:
            options = msgspec.convert(dict(params), self.params)
        except msgspec.ValidationError as error:
            raise ConfigError(f"recipe {self.name}: {str(error).replace('$.', '')}") from error
        return self.program(options)


def find(name: str) -> Recipe[Any]:
    """Return the recipe with a name, or at an import path.

    Raises:
        ConfigError: if there is none, with the nearest name, or if the object is not a recipe.
    """
    found = RECIPES.find(name)
    if not isinstance(found, Recipe):
        raise ConfigError(f"{name!r} is no recipe but {type(found).__name__}: it must be a peerloom Recipe")
    return cast("Recipe[Any]", found)
