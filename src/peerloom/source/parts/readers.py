"""Cache the last reader, since rows are mostly fetched in consecutive chunks.

A Parquet row group is read from its start, so a reader positioned after the last chunk is much faster than a
new one.
"""

from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from peerloom.source.parts.part import CountedPart, RowReader


class Readers:
    """A cache of at most one idle reader. Threads may borrow concurrently. The pickled form is empty."""

    def __init__(self) -> None:
        self._idle: deque[tuple[CountedPart, RowReader]] = deque()

    def __reduce__(self) -> tuple[Any, ...]:
        return Readers, ()

    def __del__(self) -> None:
        cached = self._take()
        if cached is not None:
            cached[1].close()

    @contextmanager
    def borrow(self, part: CountedPart) -> Generator[RowReader]:
        """Provide a reader of a part, and cache it afterwards unless an error occurs."""
        cached = self._take()
        if cached is not None and cached[0] is not part:
            cached[1].close()
            cached = None
        reader = part.open() if cached is None else cached[1]
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
