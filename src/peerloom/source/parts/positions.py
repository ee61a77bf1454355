"""Where each row of the input begins: left by the pass that counts the rows, for whoever comes back.

For each input file there are the offsets of its lines, 8 bytes each, and of the end of the last. A blank
line has the offset of the line after it. A footer says which input they belong to. The file gets its name
only when it is whole; one that is missing, damaged or of another input is as good as none, and then the
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


class Shape(msgspec.Struct, frozen=True, array_like=True):
    """Which input positions belong to: the sizes of its files in bytes, and how many rows count.

    A file whose rows need no positions, because they are found by number, is there with its rows.
    """

    sizes: list[int]
    limit: int | None


class _Footer(msgspec.Struct, frozen=True, array_like=True, tag="positions-2"):
    shape: Shape
    order: str
    lines: list[int]
    rows: list[int]
    total: int
    checksum: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Footer)


class Positions(Protocol):
    """Where the rows of an input are. May be read by any thread.

    Attributes:
        total: how many rows there are.
        lines: how many lines each file has, blank ones included.
    """

    total: int
    lines: list[int]

    def find(self, file: int, row: int) -> tuple[int, int]:
        """Where a row begins, and about how many bytes it is; those are 0 if the line is blank."""
        ...


class MappedPositions(Positions):
    """The positions of lines, mapped into memory. Made by `open`.

    Attributes:
        rows: how many lines of each file are not blank.
    """

    def __init__(self, footer: _Footer, entries: memoryview) -> None:
        self.total = footer.total
        self.lines = footer.lines
        self.rows = footer.rows
        self._entries = entries
        self._starts = [sum(footer.lines[:file]) + file for file in range(len(footer.lines))]

    @classmethod
    def open(cls, path: Path, shape: Shape) -> "MappedPositions | None":
        """The positions in a file, or None if it has none for this input. Reads it through."""
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
        """Where a line begins, and how many bytes it is to the next one that is not blank.

        Those are 0 if it is blank itself.
        """
        at = self._starts[file] + row
        begin, end = self._entries[at : at + 2]
        return begin, end - begin


@runtime_checkable
class Positioned(Source, Protocol):
    """A source that can find its rows again without reading all of them. None need be; it saves time."""

    def index(self, path: Path) -> int:
        """How many rows there are, as `total`; their positions are left at `path`.

        Positions that are there already for this very input are believed, and nothing is read then.

        Raises:
            SourceError: if a file cannot be read any more.
        """
        ...

    def positions(self, path: Path) -> Positions | None:
        """What `index` has left at `path`, if it is whole and for this very input."""
        ...


def write_positions(path: Path, shape: Shape, lines: Iterable[tuple[int, Line]]) -> int:
    """Count lines and leave their positions at `path`; if those cannot be written, count all the same.

    Args:
        path: where to; a file that is there is replaced.
        shape: the input that the lines are from.
        lines: those that are not blank, in order, with the index of their file.
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
    """Writes entries to a temporary file, and gives it its name in the end. A full disk only ends that."""

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
        """Append an entry so many times."""
        if count == 1:
            self._entries.append(offset)
        else:
            self._entries.extend(repeat(offset, count))
        if len(self._entries) >= _FLUSH:
            self.flush()

    def flush(self) -> int:
        """Write what has gathered; the CRC-32 of all entries so far."""
        data = self._entries.tobytes()
        self._checksum = zlib.crc32(data, self._checksum)
        del self._entries[:]
        self._write(data)
        return self._checksum

    def finish(self, footer: bytes) -> None:
        """Write the footer; now the file is whole."""
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
