"""Read rows that are in memory."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from peerloom.source.fingerprint import rows_digest
from peerloom.source.parts.part import OpenPart, RawRow
from peerloom.values import changed_by_parsing, check


class RowsPart(OpenPart):
    """Mappings in memory, one for each row.

    Every row is converted to JSON values; tuples become arrays. A row with a value that JSON would change or
    cannot represent, such as a date, a set, or NaN, is a bad row.
    """

    kind = "rows"

    def __init__(self, rows: Sequence[Mapping[str, Any]], name: str = "rows") -> None:
        self._given = rows
        self.name = name
        self.count = len(rows)

    def size_of(self, row: int) -> int:
        """Return 1: the rows are in memory anyway."""
        return 1

    def read(self, rows: Sequence[int]) -> Iterator[RawRow]:
        """Yield the rows with these numbers."""
        for row in rows:
            given, where = self._given[row], f"{self.name}[{row}]"
            plain = dict(given) if isinstance(given, Mapping) else given  # pyright: ignore[reportUnnecessaryIsInstance]
            try:
                data = orjson.dumps(plain)
                value = orjson.loads(data)
                if value != plain or changed_by_parsing(data, value, where):
                    check(plain, where)
                yield RawRow(row, value, where)
            except (TypeError, ValueError, RecursionError) as error:
                yield RawRow(row, None, where, _explained(plain, where, error))

    def describe(self) -> dict[str, Any]:
        """Describe the rows by their number."""
        return {"name": self.name, "rows": self.count}

    def fingerprint(self) -> dict[str, Any]:
        """Return a digest of all rows."""
        return {"rows": self.count, "digest": rows_digest(self._given)}


def _explained(row: Any, where: str, error: Exception) -> str:
    """Return why a row cannot be written as JSON, with the item at fault if it can be found."""
    try:
        check(row, where)
    except ValueError as found:
        return str(found)
    return f"{where}: cannot be written as JSON: {error}"
