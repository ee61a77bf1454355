"""Read rows from Parquet files.

The number of rows is in the file's footer. Rows are read by row group, in batches of a few megabytes, so that
a large row group costs little memory. Within a row group a reader moves forward only, and starts again for an
earlier row. Each partition decodes whole batches, but converts only its own rows. Damage in a row group costs
the rows from there to its end.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, cast

from peerloom.errors import SourceError
from peerloom.source.fingerprint import file_fingerprint
from peerloom.source.formats.format import FileFormat
from peerloom.source.formats.part import CountedPart, RawRow
from peerloom.source.plain import plain_row
from peerloom.source.storage.files import SourceFile, for_all, reading
from peerloom.source.storage.urls import is_url, one_line

BATCH_BYTES = 4 << 20
BATCH_ROWS = 4096
_BUFFER = 256 << 10  # for each column of a row group; without a buffer, a column is read as a whole


class Parquet(FileFormat):
    """Parquet files."""

    suffixes = (".parquet", ".pq")

    def file_parts(self, files: Sequence[SourceFile], pattern: str) -> "list[ParquetPart]":
        """Return one part for each file, after reading all footers."""
        return for_all(ParquetPart, files, remote=is_url(pattern))


class ParquetPart(CountedPart):
    """One Parquet file, whose footer is read immediately."""

    kind = "parquet"

    def __init__(self, file: SourceFile) -> None:
        if not file.ranged:
            raise SourceError(
                f"{file.name}: the server sends this file only as a whole, and Parquet is read from its "
                "end: download it first"
            )
        self.file = file
        self.name = file.name
        self.remote = file.remote
        stream, parquet = open_parquet(file)
        with stream:
            groups = [parquet.metadata.row_group(n) for n in range(parquet.metadata.num_row_groups)]
        self.starts = [0]
        self._sizes: list[int] = []
        for group in groups:
            self.starts.append(self.starts[-1] + int(group.num_rows))
            self._sizes.append(max(1, int(group.total_byte_size) // max(1, int(group.num_rows))))
        self.count = self.starts[-1]

    def size_of(self, row: int) -> int:
        """Return the mean uncompressed size of the rows in its row group."""
        return self._sizes[self.group_of(row)]

    def group_of(self, row: int) -> int:
        """Return the number of a row's row group."""
        return bisect_right(self.starts, row) - 1

    def open(self) -> "_Reader":
        """Return a reader of the rows, group by group."""
        return _Reader(self)

    def describe(self) -> dict[str, Any]:
        """Describe the file by its path, size and number of rows."""
        return {"path": self.file.path, "bytes": self.file.size, "rows": self.count}

    def fingerprint(self) -> dict[str, Any]:
        """Return the fingerprint of the file's content."""
        return file_fingerprint(self.file)


def open_parquet(file: SourceFile) -> tuple[Any, Any]:
    """Open a file, and return it, to be closed by the caller, with pyarrow's `ParquetFile` of it."""
    parquet = cast("Any", import_module("pyarrow.parquet"))
    with reading(file):
        stream = file.open() if file.remote else cast("Any", import_module("pyarrow")).OSFile(file.path)
        try:
            return stream, parquet.ParquetFile(stream, pre_buffer=False, buffer_size=_BUFFER)
        except Exception as error:
            stream.close()
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise SourceError(f"{file.name} is not a valid Parquet file: {one_line(error)}") from error


class _Reader:
    """A reader positioned at one batch of a row group."""

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
        """Move to the batch with this row, or to damage in the row group before it."""
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


FORMAT = Parquet
