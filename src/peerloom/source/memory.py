"""Rows that are already in memory, for the Python door."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import orjson

from peerloom.source.base import Position, SourceRow, bad_row, checked_limit, finish_row
from peerloom.source.exact import problem_in
from peerloom.source.fingerprint import rows_digest
from peerloom.values import check


class RowsSource:
    """A sequence of mappings as a source: file 0, one row each.

    Every row is taken as the JSON it would be in a file; tuples become arrays. A row with a value that JSON
    would change or cannot hold, such as a date, a set, or NaN, is a bad row.

    Args:
        rows: the rows.
        key: the field that labels a row; a row without it is a bad row.
        limit: read the first so many rows only.

    Raises:
        SourceError: if `limit` is negative.
    """

    def __init__(
        self, rows: Sequence[Mapping[str, Any]], *, key: str | None = None, limit: int | None = None
    ) -> None:
        self._given: Sequence[Mapping[str, Any]] = list(rows)
        self._rows = self._given[: checked_limit(limit)]
        self._limit = limit
        self._key = key

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_given": self._rows}  # whoever reads rows needs no others

    def rows(self, partition: int, partitions: int) -> Iterator[SourceRow]:
        """The rows of one partition, in order; see `Source`."""
        return map(self._row, islice(range(len(self._rows)), partition, None, partitions))

    def fetch(self, positions: Sequence[Position]) -> list[SourceRow]:
        """The rows at these positions."""
        return [self._row(row) for _, row, _ in positions]

    def total(self) -> int:
        """How many rows there are."""
        return len(self._rows)

    def describe(self) -> dict[str, Any]:
        """The number of rows."""
        return {"kind": "rows", "rows": len(self._rows)}

    def fingerprint(self) -> dict[str, Any]:
        """A digest of all rows given, also beyond the limit, which may grow."""
        return {
            "kind": "rows",
            "rows": len(self._given),
            "digest": rows_digest(self._given),
            "key": self._key,
            "limit": self._limit,
        }

    def _row(self, row: int) -> SourceRow:
        position = (0, row, -1)
        given = self._rows[row]
        where = f"rows[{row}]"
        plain = dict(given) if isinstance(given, Mapping) else given  # pyright: ignore[reportUnnecessaryIsInstance]
        try:
            data = orjson.dumps(plain)
            value = orjson.loads(data)
            if value != plain or problem_in(data, value):
                check(plain, where)
        except (TypeError, ValueError, RecursionError) as error:
            return bad_row(position, _explained(plain, where, error))
        return finish_row(position, where, value, self._key)


def _explained(row: Any, where: str, error: Exception) -> str:
    """Why a row cannot be kept, with the item that is the cause if it can be found."""
    try:
        check(row, where)
    except ValueError as found:
        return str(found)
    return f"{where}: cannot be written as JSON: {error}"
