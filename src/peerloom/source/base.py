"""Define the interface of sources: numbered rows, read in partitions, and read again by position.

A row is identified by its position, file and line, independent of the number of partitions. A bad row is
yielded with `error` set, so that it is counted and reported and the run continues. A source is small and
picklable; it opens its files only while it reads.
"""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple, Protocol, cast

Position = tuple[int, int, int]
"""The file index, row index and offset of a row, as in `SourceRow`."""


class SourceRow(NamedTuple):
    """One row of input, or the error of a bad row.

    `file` and `row` count from 0; `row` is the number of the line in the file, including blank lines.
    `offset` is the start of the line in bytes, or -1 if the row is found by its number, or only by reading
    the file from its start. `data` is the row (a JSON object) and `label` its own key; both are None if
    `error` is not empty. `parent` names the row of another run that it was made from, as `run/id`.
    """

    file: int
    row: int
    offset: int
    data: Any
    label: str | int | None
    error: str
    parent: str = ""


class Source(Protocol):
    """An input of numbered rows."""

    def rows(self, partition: int, partitions: int) -> Iterator[SourceRow]:
        """Return the rows of one partition, in order: those with `(file + row) % partitions == partition`.

        Raises:
            SourceError: if a file can no longer be read.
        """
        ...

    def fetch(self, positions: Sequence[Position]) -> list[SourceRow]:
        """Return the rows at these positions, in the same order.

        Raises:
            SourceError: if a file can no longer be read.
        """
        ...

    def total(self) -> int:
        """Return the number of rows within the limit, over all partitions. May read the whole input.

        Raises:
            SourceError: if a file can no longer be read.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Describe the input for the run's record, in JSON values."""
        ...


def finish_row(position: Position, where: str, data: Any, key: str | None) -> SourceRow:
    """Return the row of a decoded JSON value; a bad row if it is not an object or lacks the label's key."""
    if not isinstance(data, dict):
        return bad_row(position, f"{where}: a row must be a JSON object, but this is {_kind_of(data)}")
    row = cast("dict[str, Any]", data)
    if key is None:
        return SourceRow(*position, row, None, "")
    label = row.get(key)
    if isinstance(label, str | int) and not isinstance(label, bool):
        return SourceRow(*position, row, label, "")
    if key in row:
        return bad_row(
            position, f"{where}: field {key!r} labels the row, so it must be a string or an integer"
        )
    close = get_close_matches(key, row, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"it has: {', '.join(list(row)[:20]) or 'none'}"
    return bad_row(position, f"{where}: no field {key!r} to label the row; {hint}")


def bad_row(position: Position, error: str) -> SourceRow:
    """Return a row that has only an error."""
    return SourceRow(*position, None, None, error)


def _kind_of(value: object) -> str:
    names: dict[type, str] = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
