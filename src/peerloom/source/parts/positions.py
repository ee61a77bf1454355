"""Store the offset of each input row, for later reads by position.

The pass that counts the rows writes the file. For each input file it has the offsets of the lines, 8 bytes
each, and of the end of the last line. A blank line has the offset of the next line. A footer identifies the
input. The file is renamed into place when it is complete; if it is missing, damaged or of another input, the
input is read instead.
"""

import mmap
import os
import struct
import sys
import zlib
from array import array
from collections.abc import Iterable
from contextlib import suppress
from itertools import repeat
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

import msgspec

from peerloom.source.base import Source
from peerloom.source.storage.lines import Line

_FLUSH = 8192  # entries
_tail = struct.Struct("<II")  # the footer's length and CRC-32


class InputShape(msgspec.Struct, frozen=True, array_like=True):
    """The identity of an input: the sizes of its files in bytes, and the limit of rows.

    A file whose rows are found by number is represented by its number of rows.
    """

    sizes: list[int]
    limit: int | None


class _Footer(msgspec.Struct, frozen=True, array_like=True, tag="positions-2"):
    shape: InputShape
    order: str
    lines: list[int]
    rows: list[int]
    total: int
    checksum: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Footer)


class Positions(Protocol):
    """The positions of an input's rows. Any thread may use them.

    Attributes:
        total: the number of rows.
        lines: the number of lines of each file, including blank ones.
    """

    total: int
    lines: list[int]

    def find(self, file: int, row: int) -> tuple[int, int]:
        """Return the offset of a row, and its approximate size in bytes, which is 0 for a blank line."""
        ...


class MappedPositions(Positions):
    """The positions of lines, mapped into memory by `open`.

    Attributes:
        rows: the number of lines of each file that are not blank.
    """

    def __init__(self, footer: _Footer, entries: memoryview) -> None:
        self.total = footer.total
        self.lines = footer.lines
        self.rows = footer.rows
        self._entries = entries
        self._starts = [sum(footer.lines[:file]) + file for file in range(len(footer.lines))]

    @classmethod
    def open(cls, path: Path, shape: InputShape) -> "MappedPositions | None":
        """Map the positions in a file, after checking it completely; None if it has none for this input."""
        try:
            with path.open("rb") as file:
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError):  # an empty file cannot be mapped
            return None
        view = memoryview(data)
        if len(view) < _tail.size:
            return None
        length, checksum = _tail.unpack(view[-_tail.size :])
        end = max(0, len(view) - _tail.size - length)
        footer = _read_footer(view[end : -_tail.size], checksum)
        if footer is None or (footer.shape, footer.order) != (shape, sys.byteorder):
            return None
        if footer.checksum != zlib.crc32(view[:end]):
            return None
        return cls(footer, view[:end].cast("Q"))

    def find(self, file: int, row: int) -> tuple[int, int]:
        """Return the offset of a line, and the bytes to the next non-blank line, or 0 for a blank line."""
        index = self._starts[file] + row
        begin, end = self._entries[index : index + 2]
        return begin, end - begin


@runtime_checkable
class Positioned(Source, Protocol):
    """A source that can find its rows again without reading all of them. This is optional, and saves time."""

    def index(self, path: Path) -> int:
        """Return the number of rows, as `total`, and write their positions to `path`.

        If `path` has positions of this input already, nothing is read.

        Raises:
            SourceError: if a file can no longer be read.
        """
        ...

    def positions(self, path: Path) -> Positions | None:
        """Return the positions that `index` wrote to `path`, if they are complete and of this input."""
        ...


def write_positions(path: Path, shape: InputShape, lines: Iterable[tuple[int, Line]]) -> int:
    """Count lines, and write their positions to `path`. A failure to write does not end the count.

    Args:
        path: the file, replaced if it exists.
        shape: the identity of the input.
        lines: the lines that are not blank, in order, with the index of their file.
    """
    counts, rows = [0] * len(shape.sizes), [0] * len(shape.sizes)
    file, end = 0, 0
    with _Writer(path) as writer:
        for index, line in lines:
            while file < index:
                writer.put(end)
                file, end = file + 1, 0
            writer.put(line.offset, 1 + line.row - counts[file])
            counts[file], end = line.row + 1, line.offset + len(line.data) + 1
            rows[index] += 1
        for _ in range(file, len(counts)):
            writer.put(end)
            end = 0
        checksum = writer.flush()
        footer = _Footer(shape, sys.byteorder, counts, rows, sum(rows), checksum)
        writer.finish(_encoder.encode(footer))
    return sum(rows)


def _read_footer(data: memoryview, checksum: int) -> _Footer | None:
    if zlib.crc32(data) != checksum:
        return None
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError:
        return None


class _Writer:
    """Write entries to a temporary file, and rename it in the end. An error, e.g. a full disk, is ignored."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.tmp")
        self._entries = array("Q")
        self._checksum = 0
        self._file: BinaryIO | None = None
        with suppress(OSError):
            self._file = self._temporary.open("wb")

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._give_up()

    def put(self, offset: int, count: int = 1) -> None:
        """Append an entry `count` times."""
        if count == 1:
            self._entries.append(offset)
        else:
            self._entries.extend(repeat(offset, count))
        if len(self._entries) >= _FLUSH:
            self.flush()

    def flush(self) -> int:
        """Write the buffered entries, and return the CRC-32 of all entries so far."""
        data = self._entries.tobytes()
        self._checksum = zlib.crc32(data, self._checksum)
        del self._entries[:]
        self._write(data)
        return self._checksum

    def finish(self, footer: bytes) -> None:
        """Write the footer, and rename the file."""
        self._write(footer + _tail.pack(len(footer), zlib.crc32(footer)))
        file, self._file = self._file, None
        if file is not None:
            try:
                with file:
                    file.flush()
                    os.fdatasync(file.fileno())
                self._temporary.rename(self._path)
            except OSError:
                self._temporary.unlink(missing_ok=True)

    def _write(self, data: bytes) -> None:
        if self._file is not None:
            try:
                self._file.write(data)
            except OSError:
                self._give_up()

    def _give_up(self) -> None:
        file, self._file = self._file, None
        with suppress(OSError):
            self._temporary.unlink(missing_ok=True)
            if file is not None:
                file.close()
