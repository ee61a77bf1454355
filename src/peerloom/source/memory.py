"""Read rows from memory, for the Python API."""

from collections.abc import Mapping, Sequence
from typing import Any

from peerloom.source.combined import PartsSource
from peerloom.source.parts.rows import RowsPart
from peerloom.source.parts.tables import TablePart


class TableSource(PartsSource):
    """A source of the rows of a table in memory: file 0, one row for each; see `TablePart`.

    Args:
        table: a table of pyarrow, or a `Dataset`, as `table_of` returns it.
        key: the field that labels a row; a row without it is a bad row.
        limit: the number of rows to read; None for all.

    Raises:
        SourceError: if `limit` is negative.
    """

    def __init__(self, table: Any, *, key: str | None = None, limit: int | None = None) -> None:
        super().__init__([TablePart(table)], key=key, limit=limit)


class RowsSource(PartsSource):
    """A source of mappings in memory: file 0, one row for each; see `RowsPart`.

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
        self._given = list(rows)
        super().__init__([RowsPart(self._given)], key=key, limit=limit)

    def __getstate__(self) -> dict[str, Any]:
        needed = self._given[: self._limit]  # readers need no more
        return {**self.__dict__, "_given": needed, "_parts": [RowsPart(needed)]}

    def describe(self) -> dict[str, Any]:
        """Describe the source by its number of rows."""
        return {"kind": "rows", "rows": self.total()}

    def fingerprint(self) -> dict[str, Any]:
        """Return a digest of all rows, including those beyond the limit, which may grow."""
        [part] = self._parts
        return {**part.fingerprint(), "kind": "rows", "key": self._key, "limit": self._limit}
