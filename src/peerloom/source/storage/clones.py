"""Find the files of a data set in a clone of its repository on the Hub, by its card `README.md`.

The card's `configs` name the files of each split. Without them, the splits are those in the names of the
Parquet files, as `data/train-00000-of-00002.parquet`.
"""

import glob
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import yaml

from peerloom.errors import SourceError
from peerloom.source.storage.files import SourceFile, local_file
from peerloom.source.storage.urls import is_url, one_line

_CARD = "README.md"
_CARD_BYTES = 4 << 20
_HEAD = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
_SHARD = re.compile(r"(\w+?)(?:-\d{5}-of-\d{5}.*|[-_.].*)?\.parquet")


class ClonedDataSet(NamedTuple):
    """A clone: its folder, its license, and the patterns of the files by configuration and split."""

    folder: str
    license: str | None
    configs: dict[str, dict[str, list[str]]]
    default: str | None

    def files(self, name: str | None, split: str | None) -> list[SourceFile]:
        """Return the files of one split.

        Raises:
            SourceError: if there are several to choose from, or none.
        """
        config = self.configs[_chosen("name", name or self.default, list(self.configs), self.folder)]
        patterns = config[_chosen("split", split, list(config), self.folder)]
        found: dict[str, None] = {}
        for pattern in patterns:
            found |= dict.fromkeys(self._matches(pattern))
        return [local_file(path) for path in found]

    def _matches(self, pattern: str) -> list[str]:
        path = os.path.normpath(os.path.join(self.folder, pattern))
        if is_url(pattern) or not path.startswith(os.path.join(self.folder, "")):
            raise SourceError(f"{self.folder}/{_CARD} names {pattern!r}, which is not in its folder")
        found = sorted(name for name in glob.glob(path, recursive=True) if os.path.isfile(name))
        if not found:
            raise SourceError(
                f"{self.folder}: there is no file {pattern}, which {_CARD} names: run git lfs pull"
            )
        return found


def find_clone(folder: str) -> ClonedDataSet | None:
    """Return the data set cloned into a folder; None if the folder is something else.

    Raises:
        SourceError: if its card is malformed.
    """
    card = _read_card(os.path.join(folder, _CARD))
    if card is None:
        return None
    license = card.get("license")
    if license == "other":
        license = card.get("license_name") or license
    license = ", ".join(map(str, cast("list[Any]", license))) if isinstance(license, list) else license
    given: Any = card.get("configs")
    try:
        listed: list[Any] = given or []
        configs = {str(each["config_name"]): _splits(each) for each in listed}
        defaults = [str(each["config_name"]) for each in listed if each.get("default")]
    except (KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"{folder}/{_CARD}: its configs are malformed: {one_line(error)}") from error
    if not configs:
        configs = {"default": _by_names(folder)}
    if not any(configs.values()):
        return None
    default = defaults[0] if defaults else "default" if "default" in configs else None
    return ClonedDataSet(os.path.abspath(folder), str(license) if license else None, configs, default)


def _read_card(path: str) -> Mapping[str, Any] | None:
    """Return the metadata at the head of a card, if there is any."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            head = _HEAD.match(file.read(_CARD_BYTES))
        card = yaml.safe_load(head[1]) if head is not None else None
    except OSError:
        return None
    except (yaml.YAMLError, RecursionError) as error:
        raise SourceError(f"{path}: the YAML at its head is malformed: {one_line(error)}") from error
    return cast("Mapping[str, Any]", card) if isinstance(card, Mapping) else None


def _splits(config: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the patterns of the files of each split of one of the `configs`."""
    files: Any = config.get("data_files")
    prefix = str(config.get("data_dir") or "")
    if files is None:
        return {"train": [os.path.join(prefix, "**", "*.*")]}
    splits: dict[str, list[str]] = {}
    for each in _listed(files):
        named = cast("dict[str, Any]", each if isinstance(each, dict) else {"split": "train", "path": each})
        patterns = splits.setdefault(str(named["split"]), [])
        patterns.extend(os.path.join(prefix, str(path)) for path in _listed(named["path"]))
    return splits


def _listed(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else [value]


def _by_names(folder: str) -> dict[str, list[str]]:
    """Return the Parquet files of each split, by their names."""
    splits: dict[str, list[str]] = {}
    for path in sorted([*Path(folder).glob("*.parquet"), *Path(folder, "data").glob("*.parquet")]):
        named = _SHARD.fullmatch(path.name)
        name = named[1] if named is not None and not named[1].isdigit() else "train"
        splits.setdefault(name, []).append(glob.escape(str(path.relative_to(folder))))
    return splits


def _chosen(key: str, wanted: str | None, known: list[str], folder: str) -> str:
    if wanted is None and len(known) == 1:
        return known[0]
    if wanted in known:
        return wanted
    names = ", ".join(known)
    if wanted is not None:
        raise SourceError(f"{folder}: there is no {key} {wanted!r} in its {_CARD}; there are: {names}")
    raise SourceError(f"{folder} has several ({names}): choose one, as in {folder}?{key}={known[0]}")
