"""Keeps the reader that was used last, for rows are mostly fetched one chunk after the other.

A Parquet file is read from the beginning of a row group, so that a reader which stands behind the last
chunk has much less to do than a new one.
"""

from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from peerloom.source.parts.part import CountedPart, RowReader


class Readers:
    """At most one open reader that nobody uses. Threads may borrow at once; pickled, it is empty."""

    def __init__(self) -> None:
        self._idle: deque[tuple[CountedPart, RowReader]] = deque()

    def __reduce__(self) -> tuple[Any, ...]:
        return Readers, ()

    def __del__(self) -> None:
        kept = self._take()
        if kept is not None:
            kept[1].close()

    @contextmanager
    def borrow(self, part: CountedPart) -> Generator[RowReader]:
        """A reader of a part, for as long as nothing goes wrong with it."""
        kept = self._take()
        if kept is not None and kept[0] is not part:
            kept[1].close()
            kept = None
        reader = part.open() if kept is None else kept[1]
        try:
            yield reader
        except BaseException:
            reader.close()
            raise
        other = self._take()
        if other is not None:
            other[1].close()
        self._idle.append((part, reader))

    def _take(self) -> tuple[CountedPart, RowReader] | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None
