"""The lines of a file, streamed in bytes; .gz and .zst by suffix.

Both compressed kinds go through one loop over their decompressors, because the end of the file must be
told from a file that was cut off: zstandard's own reader ends silently in both cases. What damage leaves
of a file is yielded, then one line that carries the error.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, NamedTuple, Protocol

import zstandard

from peerloom.source.storage.files import SourceFile, reading

_PLAIN_CHUNK = 256 * 1024
_PACKED_CHUNK = 16 * 1024  # small, as a kilobyte of packed data may hold a megabyte
_LONGEST_WINDOW = 1 << 31  # files made with `zstd --long` too


class Line(NamedTuple):
    """A line that is not blank, without its newline: its index, its offset in bytes, what is in it.

    `error` says why the file goes no further; there is no data then.
    """

    row: int
    offset: int
    data: bytes
    error: str = ""


class _Damaged(Exception):
    """The compressed data breaks off or does not add up."""


class _Decompressor(Protocol):
    """What `zlib` and `zstandard` objects have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def read_lines(file: SourceFile) -> Iterator[Line]:
    """The lines of a file that are not blank, in order.

    Raises:
        SourceError: if the file cannot be read any more.
    """
    row, offset, damage = 0, 0, ""
    with reading(file), file.open() as stream:
        try:
            for data in _split(_chunks(file, stream)):
                if data and not data.isspace():
                    yield Line(row, offset, data)
                row, offset = row + 1, offset + len(data) + 1
        except _Damaged as error:
            damage = f"{file.name}:{row + 1}: {error}; the rows before it are good"
    if damage:
        yield Line(row, offset, b"", damage)


def read_line_at(file: SourceFile, stream: BinaryIO, offset: int) -> bytes | None:
    """The line that begins at a byte of an open plain file, without its newline; None if none begins there.

    Raises:
        SourceError: if the file cannot be read any more.
    """
    with reading(file):
        if 0 <= file.size <= offset:
            return None  # where some storages would refuse to look
        stream.seek(max(0, offset - 1))
        if offset and stream.read(1) != b"\n":
            return None
        return stream.readline().removesuffix(b"\n") or None


def open_file(file: SourceFile) -> BinaryIO:
    """The file, open for `read_line_at`.

    Raises:
        SourceError: if it cannot be read any more.
    """
    with reading(file):
        return file.open()


def _chunks(file: SourceFile, stream: BinaryIO) -> Iterator[bytes]:
    if file.suffix.endswith(".gz"):
        yield from _inflate(stream, lambda: zlib.decompressobj(wbits=31))
    elif file.suffix.endswith(".zst"):
        zst = zstandard.ZstdDecompressor(max_window_size=_LONGEST_WINDOW)
        yield from _inflate(stream, zst.decompressobj)
    else:
        while chunk := stream.read(_PLAIN_CHUNK):
            yield chunk


def _inflate(stream: BinaryIO, begin: Callable[[], _Decompressor]) -> Iterator[bytes]:
    """The plain data of one or more compressed streams, one after the other."""
    current: _Decompressor | None = None
    while data := stream.read(_PACKED_CHUNK):
        # Between two streams there may be padding of zeros, as tapes and some tools leave it.
        while data := data if current else data.lstrip(b"\0"):
            current = current or begin()
            try:
                plain = current.decompress(data)
            except (zlib.error, zstandard.ZstdError) as error:
                raise _Damaged(f"the compressed data is damaged ({error})") from error
            if plain:
                yield plain
            data = b""
            if current.eof:
                data, current = current.unused_data, None
    if current is not None:
        raise _Damaged("the compressed file is cut off")


def _split(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Chunks of any size cut at newlines; a line that spans many chunks is joined once."""
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
