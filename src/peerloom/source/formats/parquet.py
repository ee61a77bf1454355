"""Rows from Parquet files.

How many rows there are stands in the file's footer. Rows are read row group by row group, in batches of a
few megabytes, so that a row group of any size costs little memory; within it a reader only goes forward
and begins again for an earlier row. Each partition decodes whole batches, but makes only its own rows. A
row group that is damaged costs its rows from there on.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, cast

from peerloom.errors import SourceError
from peerloom.source.fingerprint import file_fingerprint
from peerloom.source.parts.part import CountedPart, Entry
from peerloom.source.plain import plain_row
from peerloom.source.storage.files import SourceFile, reading
from peerloom.source.storage.urls import said

BATCH_BYTES = 4 << 20
BATCH_ROWS = 4096
_BUFFER = 256 << 10  # of each column while a row group is read; without it a column is read as a whole


class ParquetPart(CountedPart):
    """One Parquet file.

    Args:
        file: the file; its footer is read at once.

    Raises:
        SourceError: if it is no Parquet file, or cannot be read.
    """

    kind = "parquet"

    def __init__(self, file: SourceFile) -> None:
        if not file.ranged:
            raise SourceError(
                f"{file.name}: the server sends this file only as a whole, and Parquet is read from its "
                "end: download it first"
            )
        self.file = file
        self.remote = file.remote
        stream, parquet = open_parquet(file)
        with stream:
            groups = [parquet.metadata.row_group(n) for n in range(parquet.metadata.num_row_groups)]
        self.starts = [0]
        self._sizes: list[int] = []
        for group in groups:
            self.starts.append(self.starts[-1] + int(group.num_rows))
            self._sizes.append(max(1, int(group.total_byte_size) // max(1, int(group.num_rows))))

    @property
    def name(self) -> str:
        """The file's name, as the user wrote it."""
        return self.file.name

    @property
    def count(self) -> int:
        """How many rows the footer tells of."""
        return self.starts[-1]

    def size_of(self, row: int) -> int:
        """The mean of its row group, uncompressed."""
        return self._sizes[self.group_of(row)]

    def group_of(self, row: int) -> int:
        """The row group that a row is in."""
        return bisect_right(self.starts, row) - 1

    def open(self) -> "_Reader":
        """Whoever reads its rows, group by group."""
        return _Reader(self)

    def describe(self) -> dict[str, Any]:
        """The file, its size in bytes and its rows."""
        return {"path": self.file.path, "bytes": self.file.size, "rows": self.count}

    def fingerprint(self) -> dict[str, Any]:
        """The content of the file."""
        return file_fingerprint(self.file)


def open_parquet(file: SourceFile) -> tuple[Any, Any]:
    """The open file, to be closed, and pyarrow's `ParquetFile` of it.

    Raises:
        SourceError: if it is no Parquet file, or cannot be read.
    """
    parquet = cast("Any", import_module("pyarrow.parquet"))
    with reading(file):
        stream = file.open() if file.remote else cast("Any", import_module("pyarrow")).OSFile(file.path)
        try:
            return stream, parquet.ParquetFile(stream, pre_buffer=False, buffer_size=_BUFFER)
        except Exception as error:
            stream.close()
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise SourceError(f"{file.name} is no good Parquet file: {said(error)}") from error


class _Reader:
    """Stands at one batch of one row group."""

    def __init__(self, part: ParquetPart) -> None:
        self._part = part
        self._stream, self._parquet = open_parquet(part.file)
        if self._parquet.metadata.num_rows != part.count:
            self._stream.close()
            raise SourceError(f"{part.name} has changed: it had {part.count} rows when the run began")
        self._batches: Iterator[Any] = iter(())
        self._batch: Any = None
        self._begin = self._end = self._group_end = 0
        self._damage = ""

    def read(self, rows: Sequence[int]) -> Iterator[Entry]:
        """The entries of these rows, which ascend."""
        at = 0
        while at < len(rows):
            if not self._begin <= rows[at] < self._end:
                self._move(rows[at])
            stop = bisect_left(rows, self._end, at)
            yield from self._entries(rows[at:stop])
            at = stop

    def close(self) -> None:
        """Close the file."""
        with suppress(Exception):
            self._stream.close()

    def _move(self, row: int) -> None:
        """Go to the batch with this row, or to where the row group is damaged before it."""
        part = self._part
        if not self._end <= row < self._group_end:
            group = part.group_of(row)
            self._begin = self._end = part.starts[group]
            self._group_end = part.starts[group + 1]
            size = max(1, min(BATCH_ROWS, BATCH_BYTES // part.size_of(row)))
            self._batches = self._parquet.iter_batches(batch_size=size, row_groups=[group], use_threads=False)
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
            return None, f"the row group is damaged from here on ({said(error)})"
        return batch, "" if batch is not None else "the row group ends before this row"

    def _entries(self, rows: Sequence[int]) -> Iterator[Entry]:
        name = self._part.name
        if self._damage:
            for row in rows:
                where = f"{name}:{row + 1}"
                yield Entry(row, None, where, f"{where}: {self._damage}")
            return
        for row, found in zip(rows, self._values(rows), strict=True):
            where = f"{name}:{row + 1}"
            value, error = plain_row(found) if isinstance(found, dict) else (None, str(found))
            yield Entry(row, value, where, f"{where}: {error}" if error else "")

    def _values(self, rows: Sequence[int]) -> Sequence[dict[str, Any] | str]:
        """The rows as Python has them; instead of one that it cannot have, why."""
        here = [row - self._begin for row in rows]
        try:
            return self._batch.take(here).to_pylist()
        except Exception:  # a value that Python has no kind for, such as a date far away
            return [self._value(row) for row in here]

    def _value(self, row: int) -> dict[str, Any] | str:
        try:
            return self._batch.slice(row, 1).to_pylist()[0]
        except Exception as error:
            return said(error)
