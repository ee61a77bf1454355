"""Read Arrow files (also Feather), and Arrow streams, as the library `datasets` writes them.

The record batches are counted by reading the file once, from its memory map if it is local. Batches are read
by number from a file, and in order from a stream.
"""

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any, cast

from peerloom.errors import SourceError
from peerloom.source.format import FileFormat
from peerloom.source.parts.batches import BatchReader, GroupedPart
from peerloom.source.storage.files import SourceFile, check_stored, for_all, reading
from peerloom.source.storage.urls import is_url, one_line

_ROWS = 1024  # converted at once
_FILE = b"ARROW1"
_FEATHER_1 = b"FEA1"


class Arrow(FileFormat):
    """Arrow and Feather files."""

    suffixes = (".arrow", ".feather", ".ipc")

    def file_parts(self, files: Sequence[SourceFile], pattern: str) -> "list[ArrowPart]":
        """Return one part for each file, after counting its rows."""
        return for_all(ArrowPart, files, remote=is_url(pattern))


class ArrowPart(GroupedPart):
    """One Arrow file or stream, whose batches are counted immediately."""

    kind = "arrow"

    def __init__(self, file: SourceFile) -> None:
        if not file.ranged:
            raise SourceError(f"{file.name}: the server sends this file only as a whole: download it first")
        with _Batches(file) as batches:
            rows = [len(batch) for batch in batches.groups()]
        super().__init__(file, rows)
        self._row_bytes = max(1, file.size // max(1, self.count))

    def size_of(self, row: int) -> int:
        """Return the mean size of all rows."""
        return self._row_bytes

    def open(self) -> BatchReader:
        """Return a reader of the rows, batch by batch."""
        batches = _Batches(self.file)
        return BatchReader(self, batches, self.count, batches.group)


class _Batches:
    """An open file, as a context manager that closes it."""

    def __init__(self, file: SourceFile) -> None:
        self._arrow = cast("Any", import_module("pyarrow"))
        self._file = file
        with reading(file):
            check_stored(file)
            self._stream = file.open() if file.remote else self._arrow.memory_map(file.path)
            try:
                start = self._stream.read(len(_FILE))
                self._random = start == _FILE
                if start.startswith(_FEATHER_1):
                    raise SourceError(
                        f"{file.name} is Feather version 1: write it anew, for example with "
                        "pandas.read_feather(...).to_feather(...)"
                    )
                self._open()
            except BaseException as error:
                self._stream.close()
                if not isinstance(error, Exception) or isinstance(error, SourceError):
                    raise
                raise SourceError(f"{file.name} is not a valid Arrow file: {one_line(error)}") from error

    def __enter__(self) -> "_Batches":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def groups(self) -> Iterator[Any]:
        """Yield all batches.

        Raises:
            SourceError: if the file is damaged.
        """
        try:
            if self._random:
                yield from map(self._reader.get_batch, range(self._reader.num_record_batches))
            else:
                yield from self._reader
        except Exception as error:
            raise SourceError(f"{self._file.name} is damaged: {one_line(error)}") from error

    def group(self, number: int) -> Iterator[Any]:
        """Yield one batch, in pieces."""
        batch = self._reader.get_batch(number) if self._random else self._read_on(number)
        for start in range(0, len(batch), _ROWS):
            yield batch.slice(start, _ROWS)

    def _read_on(self, number: int) -> Any:
        """Read a stream up to a batch, from its start if it was passed."""
        if number < self._next:
            self._open()
        for _ in range(self._next, number):
            self._reader.read_next_batch()
        self._next = number + 1
        return self._reader.read_next_batch()

    def _open(self) -> None:
        self._stream.seek(0)
        ipc = self._arrow.ipc
        self._reader = ipc.open_file(self._stream) if self._random else ipc.open_stream(self._stream)
        self._next = 0


FORMAT = Arrow
