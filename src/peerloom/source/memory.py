"""Read rows from memory, for the Python API."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import orjson

from peerloom.source.base import Position, SourceRow, bad_row, checked_limit, finish_row
from peerloom.source.fingerprint import rows_digest
from peerloom.values import changed_by_parsing, check


class RowsSource:
    """A source of mappings in memory: file 0, one row for each.

    Every row is converted to JSON values; tuples become arrays. A row with a value that JSON would change or
    cannot represent, such as a date, a set, or NaN, is a bad row.

    Args:
        rows: the rows.
        key: the field that labels a row; a row without it is a bad row.
        limit: the number of rows to read; None for all.

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
        return {**self.__dict__, "_given": self._rows}  # readers need no rows beyond the limit

    def rows(self, partition: int, partitions: int) -> Iterator[SourceRow]:
        """Return the rows of one partition, in order; see `Source`."""
        return map(self._row, islice(range(len(self._rows)), partition, None, partitions))

    def fetch(self, positions: Sequence[Position]) -> list[SourceRow]:
        """Return the rows at these positions."""
        return [self._row(row) for _, row, _ in positions]

    def total(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def describe(self) -> dict[str, Any]:
        """Describe the source by its number of rows."""
        return {"kind": "rows", "rows": len(self._rows)}

    def fingerprint(self) -> dict[str, Any]:
        """Return a digest of all rows, including those beyond the limit, which may grow."""
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
            if value != plain or changed_by_parsing(data, value, where):
                check(plain, where)
        except (TypeError, ValueError, RecursionError) as error:
            return bad_row(position, _explained(plain, where, error))
        return finish_row(position, where, value, self._key)


def _explained(row: Any, where: str, error: Exception) -> str:
    """Return why a row cannot be written as JSON, with the item at fault if it can be found."""
    try:
        check(row, where)
    except ValueError as found:
        return str(found)
    return f"{where}: cannot be written as JSON: {error}"
