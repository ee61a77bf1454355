"""Implement `peerloom recipes`: list the recipes that can be run by name."""

import dataclasses
from typing import Any

from peerloom import recipes as registry
from peerloom.cli.arguments import Json
from peerloom.cli.output import echo_json
from peerloom.config.explain import shown
from peerloom.errors import ConfigError
from peerloom.observe.console import open_console
from peerloom.observe.words import headed_table, plain


def recipes(as_json: Json = False) -> None:
    """List all recipes with their options."""
    listed = [_describe(name) for name in registry.RECIPES.names()]
    if as_json:
        echo_json(listed, indent=True)
        return
    table = headed_table("recipe", "description", "options")
    for recipe in listed:
        options = "\n".join(f"recipe.{name}={shown(value)}" for name, value in recipe["options"].items())
        table.add_row(plain(recipe["name"], "bold"), plain(recipe["summary"]), plain(options))
    open_console().print(table)


def _describe(name: str) -> dict[str, Any]:
    try:
        recipe = registry.find(name)
    except ConfigError as error:  # a package's recipe that cannot be imported: list the others
        return {"name": name, "summary": f"broken: {error}", "options": {}, "sample": None}
    options = {
        field.name: field.default_factory()
        if field.default_factory is not dataclasses.MISSING
        else field.default
        for field in dataclasses.fields(recipe.params)
    }
    return {"name": name, "summary": recipe.summary, "options": options, "sample": recipe.sample}
