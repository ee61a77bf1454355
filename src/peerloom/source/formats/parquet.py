"""Read rows from Parquet files.

The number of rows is in the file's footer. Rows are read by row group, in batches of a few megabytes, so that
a large row group costs little memory.
"""

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any, cast

from peerloom.errors import SourceError
from peerloom.source.format import FileFormat
from peerloom.source.parts.batches import BatchReader, GroupedPart
from peerloom.source.storage.files import SourceFile, check_stored, for_all, reading
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


class ParquetPart(GroupedPart):
    """One Parquet file, whose footer is read immediately."""

    kind = "parquet"

    def __init__(self, file: SourceFile) -> None:
        if not file.ranged:
            raise SourceError(
                f"{file.name}: the server sends this file only as a whole, and Parquet is read from its "
                "end: download it first"
            )
        stream, parquet = open_parquet(file)
        with stream:
            groups = [parquet.metadata.row_group(n) for n in range(parquet.metadata.num_row_groups)]
        super().__init__(file, [int(group.num_rows) for group in groups])
        self._sizes = [max(1, int(group.total_byte_size) // max(1, int(group.num_rows))) for group in groups]

    def size_of(self, row: int) -> int:
        """Return the mean uncompressed size of the rows in its row group."""
        return self._sizes[self.group_of(row)]

    def open(self) -> BatchReader:
        """Return a reader of the rows, group by group."""
        stream, parquet = open_parquet(self.file)

        def batches(group: int) -> Iterator[Any]:
            size = max(1, min(BATCH_ROWS, BATCH_BYTES // self._sizes[group]))
            return parquet.iter_batches(batch_size=size, row_groups=[group], use_threads=False)

        return BatchReader(self, stream, int(parquet.metadata.num_rows), batches)


def open_parquet(file: SourceFile) -> tuple[Any, Any]:
    """Open a file, and return it, to be closed by the caller, with pyarrow's `ParquetFile` of it."""
    parquet = cast("Any", import_module("pyarrow.parquet"))
    with reading(file):
        check_stored(file)
        stream = file.open() if file.remote else cast("Any", import_module("pyarrow")).OSFile(file.path)
        try:
            return stream, parquet.ParquetFile(stream, pre_buffer=False, buffer_size=_BUFFER)
        except Exception as error:
            stream.close()
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise SourceError(f"{file.name} is not a valid Parquet file: {one_line(error)}") from error


FORMAT = Parquet
