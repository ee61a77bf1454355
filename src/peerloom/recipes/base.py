"""Define recipes, and find them by name.

A recipe is a `Recipe` object: `RECIPE` of a package below `peerloom/recipes`, an entry point of an installed
package in the group `peerloom.recipes`, or any object at an import path `package.module:name`. There is no
central list of recipes.
"""

import dataclasses
import difflib
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import msgspec

from peerloom.errors import ConfigError
from peerloom.runtime.program import Program

RecipeParams = TypeVar("RecipeParams")

_GROUP = "peerloom.recipes"


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
                raise ConfigError(f"recipe {self.name} has no option {key!r}.{_nearest(key, known)}")
        try:
            options = msgspec.convert(dict(params), self.params)
        except msgspec.ValidationError as error:
            raise ConfigError(f"recipe {self.name}: {str(error).replace('$.', '')}") from error
        return self.program(options)


def names() -> list[str]:
    """Return the names of all recipes that are built in or declared by installed packages."""
    return sorted({*_built_in(), *(point.name for point in entry_points(group=_GROUP))})


def find(name: str) -> Recipe[Any]:
    """Return the recipe with a name, or at an import path (`package.module:name`).

    Raises:
        ConfigError: if there is none, with the nearest name, or if the object is not a recipe.
    """
    if ":" in name:
        return _imported(name)
    if name in _built_in():
        return _imported(f"peerloom.recipes.{name}:RECIPE")
    for point in entry_points(group=_GROUP, name=name):
        return _imported(point.value)
    raise ConfigError(f"there is no recipe {name!r}.{_nearest(name, names())}")


def _built_in() -> list[str]:
    package = Path(__file__).parent
    return [module.name for module in pkgutil.iter_modules([str(package)]) if module.ispkg]


def _imported(path: str) -> Recipe[Any]:
    module, _, attribute = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"recipe {path!r} cannot be imported: {error}. An import path is package.module:name"
        ) from error
    if not isinstance(found, Recipe):
        raise ConfigError(f"{path!r} is no recipe but {type(found).__name__}: it must be a peerloom Recipe")
    return cast("Recipe[Any]", found)


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else f" There are: {', '.join(known) or 'none'}."
