"""Read JSON files: an array of objects, or JSON Lines in spite of the name.

An array is split into its elements while it is read, so it needs as much memory as its largest element. An
element has its offset, and is decoded like a line of JSON Lines.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

from peerloom.source.format import FileFormat
from peerloom.source.parts.json_lines import JsonlPart
from peerloom.source.storage.files import SourceFile, for_all, maybe_compressed, reading
from peerloom.source.storage.lines import DamagedData, Line, read_chunks
from peerloom.source.storage.urls import is_url

_BOM = b"\xef\xbb\xbf"
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},"]', re.DOTALL)
_CHUNK = 64 * 1024


class JsonArrays(FileFormat):
    """Arrays of objects, or JSON Lines, plain or compressed."""

    suffixes = maybe_compressed(".json")

    def file_parts(self, files: Sequence[SourceFile], pattern: str) -> list[JsonlPart]:
        """Return one part for each file, by its first character."""
        return for_all(_part, files, remote=is_url(pattern))


class JsonArrayPart(JsonlPart):
    """One JSON array, whose elements are the rows."""

    def __init__(self, file: SourceFile) -> None:
        super().__init__(file, kind="json")

    def lines(self) -> Iterator[Line]:
        """Yield the elements with their offsets; after damage, a line with the error."""
        with reading(self.file), self.file.open() as stream:
            yield from self._elements(read_chunks(self.file, stream))

    def line_at(self, stream: BinaryIO, row: int, offset: int) -> Line | None:
        """Return the element at an offset."""
        stream.seek(offset)
        chunks = iter(lambda: stream.read(_CHUNK), b"")
        return next((Line(row, offset, data) for _, data in _split(chunks, inside=True)), None)

    def where(self, row: int) -> str:
        """Return the name of the file with the number of the element."""
        return f"{self.name}[{row}]"

    def _elements(self, chunks: Iterable[bytes]) -> Iterator[Line]:
        row = end = 0
        try:
            for offset, data in _split(chunks):
                yield Line(row, offset, data)
                row, end = row + 1, offset + len(data)
        except DamagedData as error:
            yield Line(row, end, b"", f"{self.where(row)}: {error}; the rows before it are good")


def _part(file: SourceFile) -> JsonlPart:
    """Return the part of a file that begins with `[`, or of one that is JSON Lines."""
    start = b""
    with reading(file), file.open() as stream:
        try:
            for chunk in read_chunks(file, stream):
                start = (start + chunk).removeprefix(_BOM).lstrip()
                if start:
                    break
        except DamagedData:
            pass  # reported when it is read
    return JsonArrayPart(file) if start.startswith(b"[") else JsonlPart(file)


def _split(chunks: Iterable[bytes], *, inside: bool = False) -> Iterator[tuple[int, bytes]]:
    """Yield the offset and text of each element of an array; `inside` begins within it, at an element.

    Raises:
        DamagedData: if the array does not end, or more than white space follows it.
    """
    buffer, base = b"", 0  # `base` is the offset of the buffer
    scan = start = 0  # where the search goes on, and where the element begins
    depth = 1 if inside else 0
    for chunk in chunks:
        buffer, base = buffer[start:] + chunk, base + start
        scan, start = scan - start, 0
        while depth >= 0 and (token := _TOKEN.search(buffer, scan)):
            kind = token[0]
            if kind == b'"':
                break  # a string that goes on in the next chunk
            scan = token.end()
            if depth == 1 and kind in (b",", b"]"):
                yield from _element(buffer, start, token.start(), base)
                start = scan
            if kind in (b"[", b"{"):
                depth += 1
                start = scan if depth == 1 else start
            elif kind in (b"]", b"}"):
                depth = depth - 1 if depth > 1 else -1
    if depth >= 0:
        yield from _element(buffer, start, len(buffer), base)
        raise DamagedData("the array is cut off")
    if buffer[scan:].strip(b" \t\r\n\0"):
        raise DamagedData("after the end of the array there is more")


def _element(buffer: bytes, start: int, end: int, base: int) -> Iterator[tuple[int, bytes]]:
    text = buffer[start:end]
    data = text.lstrip()
    if data:
        yield base + end - len(data), data.rstrip()


FORMAT = JsonArrays
