"""Read data sets of the Hugging Face Hub, or saved to disk by its library `datasets` (extra `hub`).

The clone of a repository is read without the library.

The library downloads a data set once, caches it and maps it into memory, so that rows are found by number. It
also manages access tokens (`HF_TOKEN`, `hf auth login`).
"""

import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast
from urllib.parse import parse_qsl

from peerloom.errors import SourceError
from peerloom.source.fingerprint import rows_digest
from peerloom.source.format import Opening, SourceFormat
from peerloom.source.formats.auto import parts_of_files
from peerloom.source.parts.json_lines import JsonlPart
from peerloom.source.parts.part import CountedPart, OpenPart, RawRow
from peerloom.source.plain import plain_row
from peerloom.source.storage.clones import find_clone
from peerloom.source.storage.extras import import_extra
from peerloom.source.storage.urls import holds_credentials, is_url, one_line

HUB = "hf://datasets/"
_KEYS = ("split", "name", "revision")
_BATCH = 256
_RUN = ".peerloom"
_SAMPLES = 1024
_SELECTED = re.compile(r"\?(?:split|name|revision)=.*")
_EXAMPLE = f"{HUB}owner/name?split=train&name=default"


class DataSet(NamedTuple):
    """A reference to a data set: as the user wrote it, its id on the Hub or its folder, and the selection."""

    written: str
    path: str
    split: str | None = None
    name: str | None = None
    revision: str | None = None


class HubDataSet(SourceFormat):
    """A data set of the Hub, the clone of its repository, or a saved one."""

    def claims(self, path: str) -> bool:
        """Return whether the path is the URL of a data set, or a folder with one."""
        folder = os.path.expanduser(_SELECTED.sub("", path))
        if is_url(path) or not os.path.isdir(folder):
            return is_data_set(path)
        return is_saved(folder) or (
            not os.path.isdir(os.path.join(folder, _RUN)) and bool(find_clone(folder))
        )

    def parts(self, path: str, opening: Opening) -> Iterator[JsonlPart | CountedPart]:
        """Yield the split as one part, or each of its files if the data set is a clone."""
        data_set = parse_data_set(path)
        folder = data_set.path if os.path.isdir(data_set.path) and not is_url(path) else None
        clone = find_clone(folder) if folder is not None and not is_saved(folder) else None
        if clone is None:
            yield DataSetPart(data_set)
            return
        if clone.license is not None:
            opening.licenses.append(clone.license)
        yield from parts_of_files(opening.new(clone.files(data_set.name, data_set.split)), path)


class DataSetPart(OpenPart):
    """One split of a data set, which is downloaded immediately if it is not cached."""

    kind = "hf"

    def __init__(self, data_set: DataSet) -> None:
        self._data_set = data_set
        self.name = data_set.written
        self._table = _load(data_set)
        self.count = int(self._table.num_rows)
        self._row_bytes = max(1, int(self._table.data.nbytes) // max(1, self.count))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_table": None}  # each reader loads the data set from its own cache

    def size_of(self, row: int) -> int:
        """Return the mean size of all rows."""
        return self._row_bytes

    def open(self) -> "DataSetPart":
        """Return itself, with the data set loaded."""
        if self._table is None:
            table = _load(self._data_set)
            if table.num_rows != self.count:
                raise SourceError(f"{self.name} has changed: it had {self.count} rows when the run began")
            self._table = table
        return self

    def read(self, rows: Sequence[int]) -> Iterator[RawRow]:
        """Yield the rows with these numbers."""
        for start in range(0, len(rows), _BATCH):
            numbers = list(rows[start : start + _BATCH])
            try:
                found = self._table[numbers].to_pylist()
            except Exception as error:
                raise SourceError(f"{self.name} cannot be read any more: {one_line(error)}") from error
            for row, each in zip(numbers, found, strict=True):
                where = f"{self.name}:{row + 1}"
                value, error = plain_row(each)
                yield RawRow(row, value, where, f"{where}: {error}" if error else "")

    def describe(self) -> dict[str, Any]:
        """Describe the data set, with its number of rows."""
        which = {key: value for key, value in self._data_set._asdict().items() if value is not None}
        return {**which, "rows": self.count}

    def fingerprint(self) -> dict[str, Any]:
        """Return the number of rows, the columns, and a digest of up to 1024 rows, evenly spaced."""
        last = self.count - 1
        wanted = min(self.count, _SAMPLES)
        numbers = sorted({last * number // max(1, wanted - 1) for number in range(wanted)})
        self.open()
        sample = [entry.value or {"error": entry.error} for entry in self.read(numbers)]
        columns = list(cast("Sequence[str]", self._table.column_names))
        return {"rows": self.count, "columns": columns, "digest": rows_digest(sample)}


def parse_data_set(written: str) -> DataSet:
    """Parse `hf://datasets/owner/name?split=...&name=...&revision=...`, or a folder with the same query."""
    path, _, query = written.partition("?")
    chosen: dict[str, str] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in _KEYS or not value:
            raise SourceError(
                f"{path}?{key}=...: after the ? there may be {', '.join(_KEYS)}, as in {_EXAMPLE}"
            )
        chosen[key] = value
    if query and not chosen:
        raise SourceError(f"{path}?...: what follows the ? is written as in {_EXAMPLE}")
    if not path.startswith(HUB):
        return DataSet(written, os.path.abspath(os.path.expanduser(path)), **chosen)
    id, at, revision = path.removeprefix(HUB).strip("/").partition("@")
    if at:
        chosen.setdefault("revision", revision)
    return DataSet(written, id, **chosen)


def is_data_set(written: str) -> bool:
    """Return whether a URL names a data set of the Hub, rather than a file in one."""
    if not written.startswith(HUB):
        return False
    path = written.removeprefix(HUB).partition("?")[0].strip("/")
    return len(path.split("/")) <= 2 and "*" not in path


def is_saved(folder: str) -> bool:
    """Return whether `datasets` saved a data set into a folder."""
    there = set(os.listdir(folder))
    return "dataset_dict.json" in there or {"dataset_info.json", "state.json"} <= there


def _load(data_set: DataSet) -> Any:
    datasets = import_extra("datasets", "hub", data_set.written)
    if holds_credentials(data_set.written):
        raise SourceError("a data set's name holds credentials: set HF_TOKEN in the environment instead")
    try:
        found = _found(datasets, data_set)
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(f"{data_set.written} cannot be loaded: {one_line(error)}") from error
    if isinstance(found, dict):
        found = _only(cast("dict[str, Any]", found), data_set)
    return found.with_format("arrow")


def _found(datasets: Any, data_set: DataSet) -> Any:
    if os.path.isabs(data_set.path):
        if not os.path.isdir(data_set.path):
            raise SourceError(f"no folder {data_set.path}; a data set of the Hub is written as in {_EXAMPLE}")
        if is_saved(data_set.path):
            return datasets.load_from_disk(data_set.path)
    split = data_set.split
    if split is None:
        names = datasets.get_dataset_split_names(
            data_set.path, config_name=data_set.name, revision=data_set.revision
        )
        split = _only({name: name for name in names}, data_set)
    return datasets.load_dataset(data_set.path, data_set.name, split=split, revision=data_set.revision)


def _only(splits: dict[str, Any], data_set: DataSet) -> Any:
    if data_set.split in splits:
        return splits[data_set.split]
    names = ", ".join(splits) or "none"
    if data_set.split is not None:
        raise SourceError(f"{data_set.written}: there is no split {data_set.split!r}; there are: {names}")
    if len(splits) != 1:
        path = data_set.written.partition("?")[0]
        example = f"{path}?split={next(iter(splits), 'train')}"
        raise SourceError(f"{data_set.written} has several splits ({names}): choose one, as in {example}")
    return next(iter(splits.values()))


FORMAT = HubDataSet
