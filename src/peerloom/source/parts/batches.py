"""Read the rows of a file that consists of groups of rows, in batches of pyarrow.

Within a group a reader moves forward only, and starts again for an earlier row. Each partition decodes whole
batches, but converts only its own rows. Damage in a group costs the rows from there to its end.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Any

from peerloom.errors import SourceError
from peerloom.source.fingerprint import file_fingerprint
from peerloom.source.parts.part import CountedPart, RawRow
from peerloom.source.plain import plain_row
from peerloom.source.storage.files import SourceFile, reading
from peerloom.source.storage.urls import one_line


class GroupedPart(CountedPart):
    """One file, given with the number of rows of each group."""

    def __init__(self, file: SourceFile, rows: Sequence[int]) -> None:
        self.file = file
        self.name = file.name
        self.remote = file.remote
        self.starts = [0, *accumulate(rows)]
        self.count = self.starts[-1]

    def group_of(self, row: int) -> int:
        """Return the number of a row's group."""
        return bisect_right(self.starts, row) - 1

    def describe(self) -> dict[str, Any]:
        """Describe the file by its path, size and number of rows."""
        return {"path": self.file.path, "bytes": self.file.size, "rows": self.count}

    def fingerprint(self) -> dict[str, Any]:
        """Return the fingerprint of the file's content."""
        return file_fingerprint(self.file)


class BatchReader:
    """A reader positioned at one batch of a group.

    Args:
        part: the part.
        stream: the open file.
        count: the number of rows in it.
        batches: returns the batches of a group, in order.
    """

    def __init__(
        self, part: GroupedPart, stream: Any, count: int, batches: Callable[[int], Iterator[Any]]
    ) -> None:
        self._part = part
        self._stream = stream
        self._open_group = batches
        if count != part.count:
            self._stream.close()
            raise SourceError(f"{part.name} has changed: it had {part.count} rows when the run began")
        self._batches: Iterator[Any] = iter(())
        self._batch: Any = None
        self._begin = self._end = self._group_end = 0
        self._damage = ""

    def read(self, rows: Sequence[int]) -> Iterator[RawRow]:
        """Yield these rows, whose numbers are ascending."""
        start = 0
        while start < len(rows):
            if not self._begin <= rows[start] < self._end:
                self._move(rows[start])
            stop = bisect_left(rows, self._end, start)
            yield from self._batch_rows(rows[start:stop])
            start = stop

    def close(self) -> None:
        """Close the file."""
        with suppress(Exception):
            self._stream.close()

    def _move(self, row: int) -> None:
        """Move to the batch with this row, or to damage in the group before it."""
        part = self._part
        if not self._end <= row < self._group_end:
            group = part.group_of(row)
            self._begin = self._end = part.starts[group]
            self._group_end = part.starts[group + 1]
            self._batches = self._open_group(group)
        while self._end <= row:
            self._begin = self._end
            self._batch, self._damage = self._next()
            self._end = self._begin + len(self._batch) if not self._damage else self._group_end

    def _next(self) -> tuple[Any, str]:
        try:
            batch = next(self._batches, None)
        except Exception as error:
            if self._part.file.remote or (isinstance(error, OSError) and error.errno is not None):
                with reading(self._part.file):
                    raise
            return None, f"the row group is damaged from here on ({one_line(error)})"
        return batch, "" if batch is not None else "the row group ends before this row"

    def _batch_rows(self, rows: Sequence[int]) -> Iterator[RawRow]:
        name = self._part.name
        if self._damage:
            for row in rows:
                where = f"{name}:{row + 1}"
                yield RawRow(row, None, where, f"{where}: {self._damage}")
            return
        for row, found in zip(rows, self._values(rows), strict=True):
            where = f"{name}:{row + 1}"
            value, error = plain_row(found) if isinstance(found, dict) else (None, str(found))
            yield RawRow(row, value, where, f"{where}: {error}" if error else "")

    def _values(self, rows: Sequence[int]) -> Sequence[dict[str, Any] | str]:
        """Return the rows as Python objects; for a row that cannot be converted, the error."""
        indices = [row - self._begin for row in rows]
        try:
            return self._batch.take(indices).to_pylist()
        except Exception:  # a value that Python cannot represent, such as a date in the far future
            return [self._value(index) for index in indices]

    def _value(self, index: int) -> dict[str, Any] | str:
        try:
            return self._batch.slice(index, 1).to_pylist()[0]
        except Exception as error:
            return one_line(error)
