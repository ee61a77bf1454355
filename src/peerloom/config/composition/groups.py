"""Read the options of groups: `llm=NAME` chooses a built-in one, or `llm/NAME.yaml` in the user's directory.

Such a file holds the keys of its group. It may extend other options of the group (`defaults: [NAME]`), or
start with the line `# @package _global_`: then it holds any keys of a run, and `- override /llm: NAME` in its
defaults chooses the model.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError
from yaml.error import MarkedYAMLError

from peerloom.config.nearest import did_you_mean
from peerloom.config.providers import find_group, known_kinds, no_such_kind
from peerloom.errors import ConfigError

_DEFAULT_LLM = "llamacpp"
_GLOBAL = re.compile(r"#\s*@package\s+_global_\s*$", re.MULTILINE)
_ELSEWHERE = re.compile(r"(?:override )?/(\w+)")


class Groups:
    """The groups and their options, built-in ones and the user's own.

    Args:
        config_dir: the user's own directory, with a directory for each group.

    Raises:
        ConfigError: if there is no such directory.
    """

    def __init__(self, config_dir: str | os.PathLike[str] | None = None) -> None:
        self._files: dict[str, dict[str, Path]] = {}
        if config_dir is None:
            return
        own = Path(config_dir)
        if not own.is_dir():
            raise ConfigError(f"config_dir {config_dir}: there is no such directory")
        for group in sorted(each for each in own.iterdir() if each.is_dir()):
            files = {
                file.relative_to(group).with_suffix("").as_posix(): file
                for file in sorted(group.rglob("*.yaml"))
            }
            if files:
                self._files[group.name] = files

    @property
    def names(self) -> set[str]:
        """The names of all groups."""
        return {"llm", "recipe", *self._files}

    def has(self, group: str, option: str | None) -> bool:
        """Return whether the user has a file for that option."""
        return option in self._files.get(group, ())

    def compose(self, chosen: Mapping[str, str]) -> DictConfig:
        """Merge the chosen options, each under its key; an option of `llm` is always included.

        Raises:
            ConfigError: for an option that does not exist, or whose file cannot be read.
        """
        requested: dict[str, str] = {}
        rest = [
            part
            for group, option in chosen.items()
            if group != "llm"
            for part in self._parts(group, option, requested, ())
        ]
        llm = {"llm": _DEFAULT_LLM, **requested, **chosen}["llm"]
        return cast("DictConfig", OmegaConf.merge(*self._parts("llm", llm, requested, ()), *rest))

    def _parts(
        self, group: str, option: str, requested: dict[str, str], parents: tuple[Path, ...]
    ) -> list[dict[str, Any]]:
        """Return the keys of the options that an option extends, then its own.

        An option of `llm` that a file requests is added to `requested`; `parents` are the files that extend
        this option.
        """
        file = self._files.get(group, {}).get(option)
        if file is None or file in parents:  # a file may extend the built-in option of the same name
            if group == "llm" and (option in known_kinds() or ":" in option):
                find_group(option)
                return [{"llm": {"kind": option}}]
            raise ConfigError(self._no_such(group, option) if file is None else f"{file}: builds on itself")
        text, body = _read(file)
        defaults = body.pop("defaults", [])
        own = body if _GLOBAL.search(text) else {group: body}
        if not isinstance(defaults, list):
            raise ConfigError(f"{file}: defaults is a list of options, as in 'defaults: [openai]'")
        parts: list[dict[str, Any]] = []
        entries = cast("list[Any]", defaults)
        for entry in entries if "_self_" in entries else [*entries, "_self_"]:
            if entry == "_self_":
                parts.append(own)
                continue
            other, name = _default(entry, group, file)
            if other == "llm" != group:
                requested["llm"] = name
            else:
                parts += self._parts(other, name, requested, (*parents, file))
        return parts

    def _no_such(self, group: str, option: str) -> str:
        there = list(self._files.get(group, ()))
        if group == "llm":
            return no_such_kind(option, there)
        return f"{group}={option}: there is no such {group}.{did_you_mean(option, there, all_of=there)}"


def read_yaml(path: str | Path) -> tuple[str, Any]:
    """Return a YAML file's text and its content, without resolving interpolations.

    Raises:
        ConfigError: if there is no such file, or it cannot be read, or is not YAML.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        loaded = OmegaConf.load(path)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except YAMLError as error:
        raise ConfigError(_yaml_problem(error)) from error
    return text, OmegaConf.to_container(loaded)


def _read(file: Path) -> tuple[str, dict[str, Any]]:
    text, content = read_yaml(file)
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: an option of a group is a mapping of keys")
    return text, cast("dict[str, Any]", content)


def _default(entry: Any, group: str, file: Path) -> tuple[str, str]:
    """Return the group and the option of an entry in a file's defaults."""
    if isinstance(entry, str):
        return group, entry
    if isinstance(entry, dict) and len(cast("dict[Any, Any]", entry)) == 1:
        ((where, option),) = cast("dict[Any, Any]", entry).items()
        elsewhere = _ELSEWHERE.fullmatch(str(where))
        if elsewhere and isinstance(option, str):
            return elsewhere[1], option
    raise ConfigError(f"{file}: {entry} cannot be a default: write NAME, or 'override /llm: NAME'")


def _yaml_problem(error: YAMLError) -> str:
    mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
    if mark is None:
        return f"not YAML: {str(error).splitlines()[0]}"
    return f"{mark.name}:{mark.line + 1}: not YAML: {cast('MarkedYAMLError', error).problem}"
