"""Read rows from JSON Lines files, plain or compressed.

Each partition streams through the files and decodes only its own lines, so partitions share nothing. Each
line is checked separately: a bad line costs one row.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

import orjson

from peerloom.source.fingerprint import file_fingerprint
from peerloom.source.parts.part import RawRow
from peerloom.source.storage.files import SourceFile, reading
from peerloom.source.storage.lines import Line, read_line_at, read_lines
from peerloom.values import changed_by_parsing

_BOM = b"\xef\xbb\xbf"

Convert = Callable[[Any], tuple[Any, str | int | None, str]]
"""A function that converts the value of a line to a row, its label, and its parent; a `ValueError` makes it a
bad row."""


class JsonlPart:
    """One file of JSON Lines, whose rows are the lines that are not blank.

    A subclass reads another format whose rows are found only by reading, by its own `lines`, `line_at`, and
    `value`.

    Args:
        file: the file.
        convert: the function that converts the value of each line to a row; by default the value is the row.
        kind: the kind of the file in the run's record.
    """

    def __init__(self, file: SourceFile, convert: Convert | None = None, kind: str = "jsonl") -> None:
        self.kind = kind
        self.name = file.name
        self.size = file.size
        self.remote = file.remote
        self.seekable = file.seekable
        self.file = file
        self._convert = convert

    def lines(self) -> Iterator[Line]:
        """Return the lines that are not blank, in order."""
        return read_lines(self.file)

    def line_at(self, stream: BinaryIO, row: int, offset: int) -> Line | None:
        """Return the line at an offset of the open file; None if none begins there."""
        data = read_line_at(self.file, stream, offset)
        return Line(row, offset, data) if data is not None else None

    def where(self, row: int) -> str:
        """Return the name of a row in errors."""
        return f"{self.name}:{row + 1}"

    def value(self, line: Line, where: str) -> tuple[Any, str]:
        """Return the value of a line, or an error."""
        data = line.data.removeprefix(_BOM) if line.row == 0 else line.data
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            return None, _explain(where, data, error)
        problem = changed_by_parsing(data, value, "row")
        return (None, f"{where}: {problem}") if problem else (value, "")

    def entry(self, line: Line) -> RawRow:
        """Return the row of a line."""
        where, label, parent = self.where(line.row), None, ""
        value, error = (None, line.error) if line.error else self.value(line, where)
        if self._convert is not None and not error:
            try:
                value, label, parent = self._convert(value)
            except ValueError as reason:
                value, error = None, f"{where}: {reason}"
        return RawRow(line.row, value, where, error, self._offset(line), label, parent)

    def fetch(self, wanted: Sequence[tuple[int, int]]) -> Iterator[RawRow]:
        """Yield the rows with these numbers and offsets (-1: unknown), without those that do not exist."""
        if not self.seekable:
            wanted = [(row, -1) for row, _ in wanted]
        scan = {row for row, offset in wanted if offset < 0}
        if len(scan) < len(wanted):
            with reading(self.file), self.file.open() as stream:
                for row, offset in wanted:
                    line = self.line_at(stream, row, offset) if offset >= 0 else None
                    if line is not None:
                        yield self.entry(line)
        if scan:
            yield from self._scan(scan)

    def describe(self) -> dict[str, Any]:
        """Describe the file by its path and size."""
        return {"path": self.file.path, "bytes": self.file.size}

    def fingerprint(self) -> dict[str, Any]:
        """Return the fingerprint of the file's content."""
        return file_fingerprint(self.file)

    def _scan(self, wanted: set[int]) -> Iterator[RawRow]:
        last = max(wanted)
        for line in self.lines():
            if line.row in wanted:
                yield self.entry(line)
            if line.row >= last:
                return

    def _offset(self, line: Line) -> int:
        return line.offset if self.seekable else -1


def _explain(where: str, data: bytes, error: orjson.JSONDecodeError) -> str:
    """Return the position and reason of a JSON error, and the remedy for common causes."""
    try:
        text = data.decode()
    except UnicodeDecodeError as reason:
        hint = "; it looks like UTF-16" if data[:2] in {b"\xff\xfe", b"\xfe\xff"} else ""
        return (
            f"{where}: not UTF-8 at byte {reason.start} (0x{data[reason.start]:02x}){hint}: "
            "convert the file, for example with iconv -t UTF-8"
        )
    if "\0" in text:
        return f"{where}: not JSON: there is a NUL character; UTF-16 or binary data is not read"
    if text.strip() in {"[", "{"}:
        return f"{where}: not JSON Lines: an object must not span lines; write each on a line of its own"
    here = text[error.pos : error.pos + 8]
    if here.startswith(("NaN", "Infinity")):
        return f"{where}:{error.colno}: not JSON: {here.rstrip(',]} ')} is not a JSON number; write null"
    return f"{where}:{error.colno}: not JSON: {error.msg}"
