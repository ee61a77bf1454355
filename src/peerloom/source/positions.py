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
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import repeat
from pathlib import Path
from typing import Protocol, runtime_checkable

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


class _Footer(msgspec.Struct, frozen=True, array_like=True, tag="positions-3"):
    shape: InputShape
    order: str
    lines: list[int]
    rows: list[int]
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


class MappedPositions:
    """The positions of lines, mapped into memory by `open`.

    Attributes:
        lines: the number of lines of each file, including blank ones.
        rows: the number of lines of each file that are not blank.
    """

    def __init__(self, footer: _Footer, entries: memoryview) -> None:
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


def has_rows(source: Source, partitions: int) -> bool:
    """Return whether any of the partitions has a row. Blocks."""
    return any(next(source.rows(each, partitions), None) for each in range(partitions))


def count_rows(source: Source, path: Path) -> int:
    """Count all rows, and write their positions to a file, so that a resumed run can skip rows. Blocks."""
    return source.index(path) if isinstance(source, Positioned) else source.total()


def write_positions(path: Path, shape: InputShape, lines: Iterable[tuple[int, Line]]) -> None:
    """Write the positions of lines that are not blank, given with their file index, to `path`.

    A failure to write, e.g. on a full disk, is ignored.
    """
    lengths, rows = [0] * len(shape.sizes), [0] * len(shape.sizes)
    scratch = path.with_name(f".{path.name}.tmp")
    try:
        with suppress(OSError), scratch.open("wb") as file:
            checksum = 0
            for chunk in _entries(lines, lengths, rows):
                checksum = zlib.crc32(chunk, checksum)
                file.write(chunk)
            footer = _encoder.encode(_Footer(shape, sys.byteorder, lengths, rows, checksum))
            file.write(footer + _tail.pack(len(footer), zlib.crc32(footer)))
            file.flush()
            os.fdatasync(file.fileno())
            scratch.rename(path)
    finally:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)


def _entries(lines: Iterable[tuple[int, Line]], lengths: list[int], rows: list[int]) -> Iterator[bytes]:
    """Yield the encoded offsets of lines, and count in `lengths` and `rows` those of each file."""
    entries = array("Q")
    file = end = 0
    for index, line in lines:
        while file < index:
            entries.append(end)
            file, end = file + 1, 0
        entries.extend(repeat(line.offset, 1 + line.row - lengths[file]))
        lengths[file], end = line.row + 1, line.offset + len(line.data) + 1
        rows[index] += 1
        if len(entries) >= _FLUSH:
            yield entries.tobytes()
            del entries[:]
    for _ in range(file, len(lengths)):
        entries.append(end)
        end = 0
    yield entries.tobytes()


def _read_footer(data: memoryview, checksum: int) -> _Footer | None:
    if zlib.crc32(data) != checksum:
        return None
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError:
        return None
