"""Find the options group of an `llm`: built in, declared by an installed package, or at an import path.

A package declares a provider as an entry point in the group `peerloom.providers`. The entry point or import
path refers to the class of a dialect (see `services.llm.providers.dialect`), which is an options class too,
or to a `ServiceSection`.
"""

import importlib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from peerloom.config.nearest import did_you_mean
from peerloom.config.sections.llm import LLM_GROUPS, ServiceSection, hosted
from peerloom.errors import ConfigError
from peerloom.options import Options

_GROUP = "peerloom.providers"


def known_kinds() -> list[str]:
    """Return the names of the built-in groups and of those that installed packages declare."""
    return [*LLM_GROUPS, *sorted({point.name for point in entry_points(group=_GROUP)} - LLM_GROUPS.keys())]


@cache
def find_group(kind: str) -> type[ServiceSection]:
    """Return the group with that name, or the one at that import path (`package.module:Name`).

    Raises:
        ConfigError: if it does not exist, or is not a group.
    """
    if kind in LLM_GROUPS:
        return LLM_GROUPS[kind]
    path = next((point.value for point in entry_points(group=_GROUP, name=kind)), kind)
    module, colon, attribute = path.partition(":")
    if not colon:
        raise ConfigError(no_such_kind(kind))
    try:
        found: Any = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"llm={kind} cannot be imported: {error}. An import path is package.module:Name"
        ) from error
    if isinstance(found, type) and issubclass(found, ServiceSection):
        return found
    if isinstance(found, type) and issubclass(found, Options) and hasattr(found, "provider"):
        try:
            return hosted(kind, found)
        except TypeError as error:
            raise ConfigError(f"llm={kind}: each option of a dialect needs a default: {error}") from error
    raise ConfigError(f"llm={kind} is no provider: it must be the class of a dialect, with options")


def no_such_kind(kind: str, others: Iterable[str] = ()) -> str:
    """Return the message for an unknown group, with the most similar name; `others` exist as well."""
    there = sorted({*known_kinds(), *others})
    return f"llm={kind}: there is no such llm.{did_you_mean(kind, there, all_of=there)}"
