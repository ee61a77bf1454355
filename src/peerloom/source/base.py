"""What a source is: numbered rows, read in partitions, and read again by position.

A row's identity is its position, file and line, whatever the number of partitions. A row that cannot be
used is still a row: it is yielded with `error` set, so that it is counted and reported and the run goes on.
A source is small and picklable; it opens its files only while it reads.
"""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple, Protocol, cast

from peerloom.errors import SourceError

Position = tuple[int, int, int]
"""File index, row index and offset, as in `SourceRow`."""


class SourceRow(NamedTuple):
    """One row of input, or why it is none.

    `file` and `row` count from 0; `row` is the line in the file, blank ones included. `offset` is where
    the line begins, in bytes, or -1 if the row is found by its number, or only by reading from the file's
    beginning. `data` is the row (a JSON object) and `label` its own key; both are None if `error` is not
    empty.
    """

    file: int
    row: int
    offset: int
    data: Any
    label: str | int | None
    error: str


class Source(Protocol):
    """Where rows come from."""

    def rows(self, partition: int, partitions: int) -> Iterator[SourceRow]:
        """The rows of one partition, in order: those with `(file + row) % partitions == partition`.

        Raises:
            SourceError: if a file cannot be read any more.
        """
        ...

    def fetch(self, positions: Sequence[Position]) -> list[SourceRow]:
        """The rows at these positions, in the order asked for.

        Raises:
            SourceError: if a file cannot be read any more.
        """
        ...

    def total(self) -> int:
        """How many rows there are, within the limit and over all partitions. May read the whole input.

        Raises:
            SourceError: if a file cannot be read any more.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """What is read, for the run's record; JSON values."""
        ...


def checked_limit(limit: int | None) -> int | None:
    """The limit, if it can be one.

    Raises:
        SourceError: if it is negative.
    """
    if limit is not None and limit < 0:
        raise SourceError(f"limit={limit}: must be 0 or more, or left out for all rows")
    return limit


def finish_row(position: Position, where: str, data: Any, key: str | None) -> SourceRow:
    """The row around a decoded JSON value, if it is an object and has the key that labels it."""
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
    """A row that cannot be used, and why."""
    return SourceRow(*position, None, None, error)


def _kind_of(value: object) -> str:
    names: dict[type, str] = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
