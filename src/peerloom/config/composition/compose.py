"""Compose groups, files and overrides to one plain dictionary, without checking it.

The options of groups (`llm=openai`, and any in the user's own directory) come first. A run file, the
overrides and the values given in Python follow, and each replaces values of the previous ones. This module
does not know the keys: the schema checks them, in the same way for all four.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from peerloom.config.composition.groups import Groups, read_yaml
from peerloom.config.composition.overrides import literal, parse_override
from peerloom.errors import ConfigError


class _Layers(NamedTuple):
    groups: dict[str, str]
    values: dict[str, Any]
    deleted: list[str]


def compose(
    recipe: str | None,
    overrides: Sequence[str] = (),
    *,
    values: Mapping[str, Any] | None = None,
    config_dir: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Compose the user's input into one dictionary.

    Args:
        recipe: a recipe's name, or the path of a run file (`.yaml`), which names its recipe.
        overrides: `key=value`, and `group=option`.
        values: overrides as Python values, by dotted key; they take precedence.
        config_dir: a directory with the user's own groups: `llm/NAME.yaml` (chosen by `llm=NAME`),
            `recipe/NAME.yaml` (used with the recipe of that name), any other by `group=NAME`.

    Raises:
        ConfigError: for an override, file or group option that cannot be read.
    """
    groups = Groups(config_dir)
    layers = _split(overrides, values or {}, groups.names)
    file = _run_file(recipe)
    _choose_llm(layers.groups, file)
    named = file["recipe"].get("name") if "recipe" in file else None
    name = cast("str | None", named if _is_file(recipe) else recipe)
    if name is not None and groups.has("recipe", name):
        layers.groups["recipe"] = name
    try:
        config = cast("DictConfig", OmegaConf.merge(groups.compose(layers.groups), file))
        if name is not None and OmegaConf.select(config, "recipe.name") is None:
            OmegaConf.update(config, "recipe.name", name, force_add=True)
        _apply(config, layers)
        return cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True, throw_on_missing=True))
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if error.full_key else ""
        raise ConfigError(f"{key}{_first_line(error)}") from error


def _split(overrides: Sequence[str], values: Mapping[str, Any], groups: set[str]) -> _Layers:
    """Separate the choices of group options from the values of keys."""
    given: dict[str, Any] = {}
    deleted: list[str] = []
    for override in map(parse_override, overrides):
        if override.deletes:
            deleted.append(override.key)
        else:
            given[override.key] = override.value
    given.update(literal(values))
    chosen = {key: value for key, value in given.items() if key in groups and isinstance(value, str)}
    if "recipe" in chosen:
        name = chosen["recipe"]
        raise ConfigError(f"recipe={name}: the recipe is the first argument: peerloom run {name}")
    return _Layers(chosen, {key: value for key, value in given.items() if key not in chosen}, deleted)


def _is_file(recipe: str | None) -> bool:
    return recipe is not None and recipe.endswith((".yaml", ".yml"))


def _run_file(recipe: str | None) -> dict[str, Any]:
    if recipe is None or not _is_file(recipe):
        return {}
    _, plain = read_yaml(recipe)
    if not isinstance(plain, dict):
        raise ConfigError(f"{recipe}: a run file is a mapping of keys, as in run.yaml")
    file = cast("dict[str, Any]", plain)
    if not isinstance(file.setdefault("recipe", {}), dict):
        raise ConfigError(f"{recipe}: recipe is a mapping with the recipe's name: 'recipe: {{name: coral}}'")
    return file


def _choose_llm(groups: dict[str, str], file: dict[str, Any]) -> None:
    """Choose the group of the file's `llm` section; if another one was chosen, drop that section."""
    section = file.get("llm")
    kind = cast("dict[str, Any]", section).get("kind") if isinstance(section, dict) else None
    if kind is None or groups.setdefault("llm", kind) != kind:
        file.pop("llm", None)


def _apply(config: DictConfig, layers: _Layers) -> None:
    for key in layers.deleted:
        parent, _, leaf = key.rpartition(".")
        section = OmegaConf.select(config, parent) if parent else config
        if not isinstance(section, DictConfig) or leaf not in section:
            raise ConfigError(f"~{key}: there is no key {key!r} to take away")
        del section[leaf]
    for key, value in layers.values.items():
        try:
            OmegaConf.update(config, key, value, merge=True, force_add=True)
        except (OmegaConfBaseException, AssertionError, TypeError) as error:
            raise ConfigError(f"{key}: cannot be set: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
