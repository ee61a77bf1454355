"""Read the rows of tables in memory: of pyarrow, pandas, polars, and of the library `datasets`."""

import hashlib
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any, cast

from peerloom.errors import SourceError
from peerloom.source.parts.part import OpenPart, RawRow
from peerloom.source.plain import plain_row
from peerloom.source.storage.urls import one_line

_BATCH = 256
_SAMPLES = 65_536


class TablePart(OpenPart):
    """A table of pyarrow, or a `Dataset`; its rows are converted while they are read."""

    kind = "table"

    def __init__(self, table: Any) -> None:
        self._table = table
        self.name = "table"
        self.count = int(table.num_rows)

    def size_of(self, row: int) -> int:
        """Return 1: the table is in memory anyway."""
        return 1

    def read(self, rows: Sequence[int]) -> Iterator[RawRow]:
        """Yield the rows with these numbers."""
        for start in range(0, len(rows), _BATCH):
            numbers = list(rows[start : start + _BATCH])
            for row, found in zip(numbers, self._values(numbers), strict=True):
                where = f"{self.name}[{row}]"
                value, error = plain_row(found) if isinstance(found, dict) else (None, str(found))
                yield RawRow(row, value, where, f"{where}: {error}" if error else "")

    def describe(self) -> dict[str, Any]:
        """Describe the table by its number of rows."""
        return {"name": self.name, "rows": self.count}

    def fingerprint(self) -> dict[str, Any]:
        """Return the names of the columns, and a digest of all rows, or of 65,536 evenly spaced."""
        digest = hashlib.blake2b(digest_size=16)
        for entry in self.read(range(0, self.count, max(1, self.count // _SAMPLES))):
            digest.update(repr(entry.value).encode("utf-8", "replace") + b"\n")
        names = [str(name) for name in self._table.column_names]
        return {"rows": self.count, "columns": names, "digest": digest.hexdigest()}

    def _values(self, numbers: list[int]) -> Sequence[dict[str, Any] | str]:
        """Return the rows as Python objects; for a row that cannot be converted, the error."""
        try:
            return self._taken(numbers)
        except Exception:  # a value that Python cannot represent, such as a date in the far future
            return [self._value(number) for number in numbers]

    def _value(self, number: int) -> dict[str, Any] | str:
        try:
            return self._taken([number])[0]
        except Exception as error:
            return one_line(error)

    def _taken(self, numbers: list[int]) -> list[dict[str, Any]]:
        if _library(self._table) == "pyarrow":
            first = min(numbers)
            near = self._table.slice(first, max(numbers) - first + 1)
            return near.take([number - first for number in numbers]).to_pylist()
        return self._table[numbers].to_pylist()


def table_of(given: object) -> Any:
    """Return a data frame, a table, or a `Dataset` in the form that `TablePart` reads, else None.

    Raises:
        SourceError: if a data frame cannot be converted.
    """
    library = _library(given)
    table = cast("Any", given)
    if library == "datasets" and hasattr(table, "with_format") and hasattr(table, "num_rows"):
        if type(table).__name__ == "DatasetDict":
            raise SourceError(f"source= is a DatasetDict: give one of its splits: {', '.join(table)}")
        return table.with_format("arrow")
    if library not in ("pandas", "polars", "pyarrow") or not hasattr(table, "columns"):
        return None
    arrow = cast("Any", import_module("pyarrow"))
    try:
        if library == "pandas":
            return arrow.Table.from_pandas(table, preserve_index=False)
        if hasattr(table, "to_arrow"):
            return table.to_arrow()
        return table if isinstance(table, arrow.Table) else arrow.Table.from_batches([table])
    except Exception as error:
        raise SourceError(
            f"source=: the table cannot be converted to Arrow: {one_line(error)}. "
            "Give its rows, for example table.to_dict('records')"
        ) from error


def _library(value: object) -> str:
    return type(value).__module__.partition(".")[0]
