"""Hydra's part: from groups, files and overrides to one plain dictionary, not checked yet.

Hydra composes the groups (`llm=openai`, and any group of the user's own directory); then come, each
over what was before, a run file, the overrides and the values given in Python. Which keys there are
is not known here: the schema says that, for all four in the same way.
"""

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError
from yaml.error import MarkedYAMLError

from peerloom.config.nearest import did_you_mean
from peerloom.config.secrets import refuse_secrets
from peerloom.errors import ConfigError

_CONF = Path(__file__).parent / "conf"
_hydra_is_global = threading.Lock()


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
    """Compose everything the user said into one dictionary.

    Args:
        recipe: a recipe's name, or the path of a run file (`.yaml`), which names its recipe.
        overrides: `key=value` in Hydra's syntax, and `group=option`.
        values: the same as Python values, by dotted key; they win.
        config_dir: a directory with groups of the user's own: `llm/NAME.yaml` (chosen by `llm=NAME`),
            `recipe/NAME.yaml` (taken with the recipe of that name), any other by `group=NAME`.

    Raises:
        ConfigError: for an override, file or group option that cannot be read.
    """
    own = _own_groups(config_dir)
    layers = _split(overrides, values or {}, {"llm", "recipe", *own})
    file = _run_file(recipe)
    _settle_llm(layers.groups, file)
    named = file["recipe"].get("name") if "recipe" in file else None
    name = cast("str | None", named if _is_file(recipe) else recipe)
    if name in own.get("recipe", ()):
        layers.groups["recipe"] = cast("str", name)
    config = _composed(layers.groups, config_dir)
    try:
        config = cast("DictConfig", OmegaConf.merge(config, file))
        if name is not None and OmegaConf.select(config, "recipe.name") is None:
            OmegaConf.update(config, "recipe.name", name, force_add=True)
        _apply(config, layers)
        return cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True, throw_on_missing=True))
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if error.full_key else ""
        raise ConfigError(f"{key}{_first_line(error)}") from error


def keys(texts: Sequence[str]) -> dict[str, Any]:
    """Plain `key=value` texts, in the syntax of overrides, where there are no groups and no files.

    Raises:
        ConfigError: for a text that is not one.
    """
    nested: DictConfig = OmegaConf.create()
    for text in texts:
        key, value = _parsed(text)
        OmegaConf.update(nested, key, literal(value), force_add=True)
    return cast("dict[str, Any]", OmegaConf.to_container(nested, resolve=True))


def literal(value: Any) -> Any:
    """The value, with `${` written so that composing does not interpolate it."""
    if isinstance(value, str):
        return value.replace("${", "\\${")
    if isinstance(value, Mapping):
        return {key: literal(inner) for key, inner in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [literal(inner) for inner in cast("Sequence[Any]", value)]
    return value


def _split(overrides: Sequence[str], values: Mapping[str, Any], groups: set[str]) -> _Layers:
    """Tell choices of a group from values of a key."""
    said: dict[str, Any] = {}
    deleted: list[str] = []
    for text in overrides:
        key, value = _parsed(text)
        if text.startswith("~"):
            deleted.append(key)
        else:
            said[key] = value
    said.update(literal(values))
    chosen = {key: value for key, value in said.items() if key in groups and isinstance(value, str)}
    if "recipe" in chosen:
        name = chosen["recipe"]
        raise ConfigError(f"recipe={name}: the recipe is the first argument: peerloom run {name}")
    return _Layers(chosen, {key: value for key, value in said.items() if key not in chosen}, deleted)


def _parsed(text: str) -> tuple[str, Any]:
    """Key and value of an override; what is no value in Hydra's syntax is text as it stands."""
    typed, equals, value = text.partition("=")
    key = typed.lstrip("+~")
    if not (equals or text.startswith("~")) or not all(map(str.isidentifier, key.split("."))):
        raise ConfigError(f"{text}: not an override: write key=value, e.g. limit=20 or source.path=q.jsonl")
    refuse_secrets({key: value})
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        if value[:1] in ("[", "{", "'", '"'):
            raise ConfigError(f"{text}: {_first_line(error)}; a quote in a value is written \\' ") from error
        return key, value
    if override.is_sweep_override():
        raise ConfigError(f"{text}: {key} takes one value: a list is written [a,b], a comma in a name quoted")
    return key, override.value()


def _own_groups(config_dir: str | os.PathLike[str] | None) -> dict[str, list[str]]:
    """The groups of the user's own directory, and their options."""
    if config_dir is None:
        return {}
    directory = Path(config_dir)
    if not directory.is_dir():
        raise ConfigError(f"config_dir {config_dir}: there is no such directory")
    return {
        group.name: sorted(file.stem for file in group.glob("*.yaml"))
        for group in sorted(directory.iterdir())
        if group.is_dir() and any(group.glob("*.yaml"))
    }


def _is_file(recipe: str | None) -> bool:
    return recipe is not None and recipe.endswith((".yaml", ".yml"))


def _run_file(recipe: str | None) -> dict[str, Any]:
    if recipe is None or not _is_file(recipe):
        return {}
    try:
        loaded = OmegaConf.load(recipe)
    except FileNotFoundError as error:
        raise ConfigError(f"{recipe}: there is no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{recipe}: cannot be read: {error}") from error
    except YAMLError as error:
        raise ConfigError(_yaml_problem(error)) from error
    plain = OmegaConf.to_container(loaded)
    if not isinstance(plain, dict):
        raise ConfigError(f"{recipe}: a run file is a mapping of keys, as in run.yaml")
    file = cast("dict[str, Any]", plain)
    if not isinstance(file.setdefault("recipe", {}), dict):
        raise ConfigError(f"{recipe}: recipe is a mapping with the recipe's name: 'recipe: {{name: coral}}'")
    return file


def _settle_llm(groups: dict[str, str], file: dict[str, Any]) -> None:
    """Choose the group that the file's `llm` section is of; another choice puts that section aside."""
    section = file.get("llm")
    kind = cast("dict[str, Any]", section).get("kind") if isinstance(section, dict) else None
    if kind is None or groups.setdefault("llm", kind) != kind:
        file.pop("llm", None)


def _composed(groups: Mapping[str, str], config_dir: str | os.PathLike[str] | None) -> DictConfig:
    chosen = [
        f"{group}={_quoted(option)}" if group == "llm" else f"+{group}={_quoted(option)}"
        for group, option in groups.items()
    ]
    if config_dir is not None:
        chosen.append(f"hydra.searchpath=[{_quoted('file://' + os.path.abspath(config_dir))}]")
    try:
        with _hydra_is_global, initialize_config_dir(config_dir=str(_CONF), version_base="1.3"):
            config = hydra_compose("config", overrides=chosen)
    except MissingConfigException as error:
        raise ConfigError(_no_such_option(error)) from error
    except MarkedYAMLError as error:
        raise ConfigError(_yaml_problem(error)) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_first_line(error)) from error
    OmegaConf.set_struct(config, False)
    return config


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


def _no_such_option(error: MissingConfigException) -> str:
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    options = list(error.options or ())
    return f"{group}={option}: there is no such {group}.{did_you_mean(option, options, all_of=options)}"


def _yaml_problem(error: YAMLError) -> str:
    mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
    if mark is None:
        return f"not YAML: {_first_line(error)}"
    return f"{mark.name}:{mark.line + 1}: not YAML: {cast('MarkedYAMLError', error).problem}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
