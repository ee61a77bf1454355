"""Stream the bytes and lines of a file, decompressing .gz, .zst, .bz2, and .xz.

All formats use one loop over their decompressors, to detect a truncated file: zstandard's own reader ends
without an error there. The lines before a damage are yielded, then one line with the error.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, NamedTuple, Protocol

import zstandard

from peerloom.source.storage.files import COMPRESSED, SourceFile, reading

_PLAIN_CHUNK = 256 * 1024
_COMPRESSED_CHUNK = 16 * 1024  # small, since a kilobyte may decompress to a megabyte
_MAX_WINDOW = 1 << 31  # for files made with `zstd --long`
_ERRORS = (zlib.error, zstandard.ZstdError, lzma.LZMAError, OSError, EOFError)


class Line(NamedTuple):
    """A line that is not blank: its index, its offset in bytes, and its data without the newline.

    If `error` is not empty, the rest of the file cannot be read, and there is no data.
    """

    row: int
    offset: int
    data: bytes
    error: str = ""


class DamagedData(Exception):
    """The compressed data is truncated or invalid."""


class _Decompressor(Protocol):
    """The common interface of the decompressors."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def read_lines(file: SourceFile, *, blank: bool = False) -> Iterator[Line]:
    """Yield the lines of a file, in order; the blank ones only if `blank`."""
    row, offset, damage = 0, 0, ""
    with reading(file), file.open() as stream:
        try:
            for data in _split(read_chunks(file, stream)):
                if blank or (data and not data.isspace()):
                    yield Line(row, offset, data)
                row, offset = row + 1, offset + len(data) + 1
        except DamagedData as error:
            damage = f"{file.name}:{row + 1}: {error}; the rows before it are good"
    if damage:
        yield Line(row, offset, b"", damage)


def read_line_at(file: SourceFile, stream: BinaryIO, offset: int) -> bytes | None:
    """Return the line at an offset of an open plain file, without its newline; None if none begins there."""
    if 0 <= file.size <= offset:
        return None  # some storages refuse to read beyond the end
    stream.seek(max(0, offset - 1))
    if offset and stream.read(1) != b"\n":
        return None
    return stream.readline().removesuffix(b"\n") or None


def read_chunks(file: SourceFile, stream: BinaryIO) -> Iterator[bytes]:
    """Yield the decompressed content of an open file.

    Raises:
        DamagedData: if it cannot be decompressed.
    """
    compression = next((each for each in COMPRESSED if file.suffix.endswith(each)), None)
    if compression is not None:
        yield from _inflate(stream, _DECOMPRESSORS[compression])
        return
    while chunk := stream.read(_PLAIN_CHUNK):
        yield chunk


def _inflate(stream: BinaryIO, begin: Callable[[], _Decompressor]) -> Iterator[bytes]:
    """Yield the decompressed data of one or more concatenated streams."""
    current: _Decompressor | None = None
    while data := stream.read(_COMPRESSED_CHUNK):
        # Tapes and some tools pad streams with zeros.
        while data := data if current else data.lstrip(b"\0"):
            current = current or begin()
            try:
                plain = current.decompress(data)
            except _ERRORS as error:
                raise DamagedData(f"the compressed data is damaged ({error})") from error
            if plain:
                yield plain
            data = b""
            if current.eof:
                data, current = current.unused_data, None
    if current is not None:
        raise DamagedData("the compressed file is cut off")


def _split(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Split chunks of any size at newlines; a line that spans many chunks is joined once."""
    pending: list[bytes] = []
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        pending.append(first)
        if others:
            yield b"".join(pending)
            yield from others[:-1]
            pending = [others[-1]]
    last = b"".join(pending)
    if last:
        yield last


_DECOMPRESSORS: dict[str, Callable[[], _Decompressor]] = {
    ".gz": lambda: zlib.decompressobj(wbits=31),
    ".zst": lambda: zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).decompressobj(),
    ".bz2": bz2.BZ2Decompressor,
    ".xz": lzma.LZMADecompressor,
}
