"""Read the input that is given to `peerloom.run` as an object, and check the first rows of any input."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from itertools import chain, islice
from typing import Any, cast

from peerloom.config import Config
from peerloom.errors import ConfigError, SourceError
from peerloom.runtime.program import Program
from peerloom.source.base import Source, SourceRow
from peerloom.source.combined import PartsSource
from peerloom.source.memory import RowsSource, TableSource
from peerloom.source.parts.tables import table_of
from peerloom.source.stream.recording import StreamSource
from peerloom.source.stream.streams import IterableStream

Rows = (
    str
    | os.PathLike[str]
    | Iterable[str | os.PathLike[str] | Mapping[str, Any]]
    | Source
    | Callable[[int], Iterable[Any]]
)
"""Input: a path or pattern, several of them, rows, a data frame or table, a source object, or a
function that returns the rows from a number on."""


class GivenTable:
    """A table given as input, in the form that `TableSource` reads."""

    def __init__(self, table: Any) -> None:
        self.table = table


Given = Source | GivenTable | IterableStream | list[Mapping[str, Any]]
"""Input given as an object, other than paths."""


def read_given(source: Rows | None, values: dict[str, Any]) -> Given | None:
    """Return input given as an object; set paths as a value of the configuration instead."""
    if isinstance(source, str | os.PathLike):
        values["source.path"] = os.fspath(source)
        return None
    if callable(source):
        return IterableStream(source)
    table = table_of(source)
    if table is not None:
        return GivenTable(table)
    if source is None or not isinstance(source, Iterable):
        return source
    return _read_items(source, values)


def _read_items(items: Iterable[Any], values: dict[str, Any]) -> Given | None:
    """Return rows, a stream if their number is unknown; set paths as a value of the configuration."""
    if not isinstance(items, Sized):
        rest = iter(items)
        first = list(islice(rest, 1))
        items = chain(first, rest)
        if not first or not isinstance(first[0], str | os.PathLike):
            return IterableStream(items)
    found: list[Any] = list(items)
    paths = [os.fspath(cast("str", item)) for item in found if isinstance(item, str | os.PathLike)]
    if not paths:
        return cast("list[Mapping[str, Any]]", found)
    if len(paths) < len(found):
        raise ConfigError("source= mixes paths and rows: give one or the other")
    values["source.path"] = paths
    return None


def given_source(given: Given, config: Config) -> Source:
    """Return the source of the input given."""
    if config.source.field is not None or config.source.format != "auto":
        raise ConfigError("source.field and source.format are for source.path: what is given here is rows")
    if isinstance(given, GivenTable):
        return TableSource(given.table, key=config.source.key, limit=config.limit)
    if isinstance(given, IterableStream):
        return StreamSource(given, key=config.source.key, limit=config.limit)
    if isinstance(given, list):
        return RowsSource(given, key=config.source.key, limit=config.limit)
    if config.limit is not None or config.source.key is not None:
        raise ConfigError("limit and source.key are settings of the source object itself: set them there")
    return given


def check_first_rows(source: Source, program: Program) -> None:
    """Check that the first row of each file is a row, and that the program can work on it.

    Raises:
        SourceError: with the name of the row, and the reason.
    """
    for where, row in _first_rows(source):
        if row.error:
            raise SourceError(f"a first row cannot be read: {row.error}")
        if program.check_row is None:
            continue
        try:
            program.check_row(row.data)
        except Exception as error:
            names = ", ".join(map(str, list(row.data)[:20])) or "none"
            raise SourceError(
                f"{where}: the row does not suit the workflow: {error or type(error).__name__}. "
                f"Its fields are: {names}"
            ) from error


def _first_rows(source: Source) -> Iterator[tuple[str, SourceRow]]:
    if isinstance(source, StreamSource):
        return iter(())
    if isinstance(source, PartsSource):
        return source.first_rows()
    return (("the first row", row) for row in islice(source.rows(0, 1), 1))
