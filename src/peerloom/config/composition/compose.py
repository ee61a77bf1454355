"""Compose groups, files and overrides to one plain dictionary, without checking it.

The options of groups (`llm=openai`, and the recipe's in the user's own directory) come first. A run file, the
overrides and the values given in Python follow, and each replaces values of the previous ones. This module
does not know the keys: the schema checks them, in the same way for all four.
"""

import os
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError
from yaml.error import MarkedYAMLError

from peerloom.config.composition.overrides import literal, parse_override
from peerloom.config.sections.llm import find_group, known_kinds, no_such_kind
from peerloom.errors import ConfigError
from peerloom.lookup.nearest import did_you_mean
from peerloom.lookup.plugins import absolute_file
from peerloom.lookup.small_file import read_small_file

_DEFAULT_LLM = "llamacpp"


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
        overrides: `key=value`, and `llm=NAME`.
        values: overrides as Python values, by dotted key; they take precedence.
        config_dir: a directory with the user's own groups: `llm/NAME.yaml` (chosen by `llm=NAME`), and
            `recipe/NAME.yaml` (used with the recipe of that name).

    Raises:
        ConfigError: for an override, file or group option that cannot be read.
    """
    groups = _Groups(config_dir)
    given = _given(overrides, values or {})
    file = _run_file(recipe)
    llm = _choose_llm(given, file)
    named = file["recipe"].get("name") if "recipe" in file else None
    name = cast("str | None", named if _is_file(recipe) else recipe)
    own = {"recipe": groups.compose("recipe", name)} if name and groups.file("recipe", name) else {}
    try:
        config = cast("DictConfig", OmegaConf.merge({"llm": groups.compose("llm", llm), **own}, file))
        if name is not None and OmegaConf.select(config, "recipe.name") is None:
            OmegaConf.update(config, "recipe.name", name, force_add=True)
        for key, value in given.items():
            try:
                OmegaConf.update(config, key, value, merge=True, force_add=True)
            except (OmegaConfBaseException, AssertionError, TypeError) as error:
                raise ConfigError(f"{key}: cannot be set: {_first_line(error)}") from error
            except ValueError as error:  # of OmegaConf's own: the index of a list was expected
                raise ConfigError(f"{key}: cannot be set: it is below a list, not a group of keys") from error
        composed: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        return _with_absolute_files(composed)
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if error.full_key else ""
        raise ConfigError(f"{key}{_first_line(error)}") from error


def _given(overrides: Sequence[str], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the user by key."""
    given = {**dict(map(parse_override, overrides)), **literal(values)}
    if isinstance(given.get("source"), str):
        given["source.format"] = given.pop("source")
    if isinstance(recipe := given.get("recipe"), str):
        raise ConfigError(f"recipe={recipe}: the recipe is the first argument: peerloom run {recipe}")
    return given


def _is_file(recipe: str | None) -> bool:
    return recipe is not None and recipe.endswith((".yaml", ".yml"))


def _run_file(recipe: str | None) -> dict[str, Any]:
    if recipe is None or not _is_file(recipe):
        return {}
    plain = _read_yaml(recipe)
    if not isinstance(plain, dict):
        raise ConfigError(f"{recipe}: a run file is a mapping of keys, as in run.yaml")
    file = cast("dict[str, Any]", plain)
    if not isinstance(file.setdefault("recipe", {}), dict):
        raise ConfigError(f"{recipe}: recipe is a mapping with the recipe's name: 'recipe: {{name: coral}}'")
    return file


def _choose_llm(given: dict[str, Any], file: dict[str, Any]) -> str:
    """Return the chosen option of `llm`; if it is not the file's, drop the file's section."""
    section = file.get("llm")
    kind = cast("dict[str, Any]", section).get("kind") if isinstance(section, dict) else None
    chosen = given.pop("llm") if isinstance(given.get("llm"), str) else None
    if kind is None or chosen not in (None, kind):
        file.pop("llm", None)
    return chosen or (_DEFAULT_LLM if kind is None else str(kind))


def _with_absolute_files(config: dict[str, Any]) -> dict[str, Any]:
    """Make import paths of files absolute, so that the run can be resumed in another directory."""
    services = [*models_of(config), *mappings_in(config.get("services")).values()]
    named = [(config.get("recipe"), "name"), (config.get("source"), "format"), (config.get("sink"), "format")]
    for section, key in [*named, *((each, "kind") for each in services)]:
        keys = cast("dict[str, Any]", section) if isinstance(section, dict) else {}
        if isinstance(keys.get(key), str):
            keys[key] = absolute_file(keys[key])
    return config


def models_of(composed: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the sections of language models, without those that are no mappings."""
    return [*mappings_in({"llm": composed.get("llm")}).values(), *mappings_in(composed.get("llms")).values()]


def mappings_in(sections: object) -> dict[str, dict[str, Any]]:
    """Return the items of a mapping that are mappings, as the named sections of a configuration are."""
    named = cast("dict[str, Any]", sections) if isinstance(sections, dict) else {}
    return {name: cast("dict[str, Any]", each) for name, each in named.items() if isinstance(each, dict)}


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class _Groups:
    """The options of the groups `llm` and `recipe`: built-in ones, and files in the user's directory.

    `llm/NAME.yaml` holds the keys of `llm=NAME`, and may extend other options (`defaults: [NAME]`).
    """

    def __init__(self, config_dir: str | os.PathLike[str] | None = None) -> None:
        self._own = None if config_dir is None else Path(config_dir)
        if self._own is not None and not self._own.is_dir():
            raise ConfigError(f"config_dir {config_dir}: there is no such directory")

    def file(self, group: str, option: str) -> Path | None:
        """Return the user's file for an option, if there is one."""
        file = self._own and self._own / group / f"{option}.yaml"
        return file if file and file.is_file() else None

    def compose(self, group: str, option: str, parents: tuple[Path, ...] = ()) -> DictConfig:
        """Return the keys of an option, on top of those that it extends; `parents` extend it."""
        file = self.file(group, option)
        if file is None or file in parents:  # a file may extend the built-in option of the same name
            if group == "llm" and (option in known_kinds() or ":" in option):
                find_group(option)
                return OmegaConf.create({"kind": option})
            raise self._no_such(group, option) if file is None else ConfigError(f"{file}: builds on itself")
        content = _read_yaml(file)
        if not isinstance(content, dict):
            raise ConfigError(f"{file}: an option of a group is a mapping of keys")
        keys = cast("dict[str, Any]", content)
        extended: Any = keys.pop("defaults", [])
        if not isinstance(extended, list) or not all(isinstance(each, str) for each in extended):  # pyright: ignore[reportUnknownVariableType]
            raise ConfigError(f"{file}: defaults is a list of options, as in 'defaults: [openai]'")
        parts = [self.compose(group, each, (*parents, file)) for each in cast("list[str]", extended)]
        return cast("DictConfig", OmegaConf.merge(*parts, keys))

    def _no_such(self, group: str, option: str) -> ConfigError:
        there = sorted(file.stem for file in self._own.glob(f"{group}/*.yaml")) if self._own else []
        if group == "llm":
            return no_such_kind(option, there)
        return ConfigError(
            f"{group}={option}: there is no such {group}.{did_you_mean(option, there, all_of=there)}"
        )


def _read_yaml(path: str | Path) -> Any:
    """Return the content of a YAML file, without resolving interpolations."""
    try:
        return OmegaConf.to_container(OmegaConf.load(StringIO(read_small_file(path).decode())))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except YAMLError as error:
        raise ConfigError(_yaml_problem(path, error)) from error


def _yaml_problem(path: str | Path, error: YAMLError) -> str:
    mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
    if mark is None:
        return f"{path}: not YAML: {str(error).splitlines()[0]}"
    return f"{path}:{mark.line + 1}: not YAML: {cast('MarkedYAMLError', error).problem}"
