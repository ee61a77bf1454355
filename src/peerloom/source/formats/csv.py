"""Read CSV and TSV files, whose first record names the fields.

All values are texts, as the files say nothing else. A record may span lines, within quotes. A record that is
malformed costs one row: reading goes on with the line after its first. This needs the standard library's
reader: that of pyarrow neither numbers the records nor isolates a bad one.
"""

import csv
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, BinaryIO

from peerloom.errors import SourceError
from peerloom.options import SAME
from peerloom.source.format import FileFormat
from peerloom.source.parts.json_lines import JsonlPart
from peerloom.source.storage.files import SourceFile, for_all, maybe_compressed
from peerloom.source.storage.lines import Line, read_lines
from peerloom.source.storage.urls import is_url

MAX_FIELD = 4 << 20  # characters
csv.field_size_limit(max(csv.field_size_limit(), MAX_FIELD))
_BOM = b"\xef\xbb\xbf"
_TSV = maybe_compressed(".tsv", ".tab")


@dataclass(frozen=True, kw_only=True)
class Csv(FileFormat):
    """CSV and TSV, plain or compressed."""

    suffixes = maybe_compressed(".csv") + _TSV
    delimiter: Annotated[str | None, SAME] = None
    """The character between fields; by default a tab for `.tsv` and `.tab`, else a comma."""

    def file_parts(self, files: Sequence[SourceFile], pattern: str) -> "list[CsvPart]":
        """Return one part for each file, after reading all headers."""
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '"\r\n'):
            raise SourceError(f"source.delimiter={self.delimiter!r}: it must be one character")
        return for_all(lambda file: CsvPart(file, self._delimiter(file)), files, remote=is_url(pattern))

    def _delimiter(self, file: SourceFile) -> str:
        return self.delimiter or ("\t" if file.suffix.endswith(_TSV) else ",")


class CsvPart(JsonlPart):
    """One file, whose header is read immediately."""

    def __init__(self, file: SourceFile, delimiter: str) -> None:
        super().__init__(file, kind="csv")
        self._delimiter = delimiter
        header = next(self._records(read_lines(file, blank=True)), None)
        self._fields, error = ([], "it is empty") if header is None else self._parsed(header)
        if not error and (len(set(self._fields)) < len(self._fields) or "" in self._fields):
            error = "the names of the fields in its first line must be unique, and not empty"
        if error:
            raise SourceError(f"{file.name} is no CSV file with a header: {error}")

    def lines(self) -> Iterator[Line]:
        """Yield the records after the header, each with the number and offset of its first line."""
        records = self._records(read_lines(self.file, blank=True))
        next(records, None)
        return records

    def line_at(self, stream: BinaryIO, row: int, offset: int) -> Line | None:
        """Return the record at an offset."""
        stream.seek(offset)
        lines = iter(stream.readline, b"")
        numbered = (Line(row, offset, data.removesuffix(b"\n")) for data in lines)
        return next(self._records(numbered), None)

    def value(self, line: Line, where: str) -> tuple[Any, str]:
        """Return the record as an object."""
        values, error = self._parsed(line)
        if error:
            return None, f"{where}: {error}"
        if len(values) != len(self._fields):
            return None, f"{where}: it has {len(values)} fields, but the first line has {len(self._fields)}"
        return dict(zip(self._fields, values, strict=True)), ""

    def _parsed(self, line: Line) -> tuple[list[str], str]:
        if line.error:
            return [], line.error
        try:
            text = line.data.decode("utf-8-sig" if line.offset == 0 else "utf-8")
            lines = (each + "\n" for each in text.split("\n"))
            (values,) = csv.reader(lines, delimiter=self._delimiter, strict=True)
        except UnicodeDecodeError as error:
            return [], f"not UTF-8 at byte {error.start}: convert the file, for example with iconv -t UTF-8"
        except (csv.Error, ValueError) as error:
            return [], f"not CSV: {error}"
        return values, ""

    def _records(self, lines: Iterable[Line]) -> Iterator[Line]:
        """Join the lines of each record; a malformed record is its first line."""
        waiting, further = deque[Line](), iter(lines)
        taken: list[Line] = []

        def feed() -> Iterator[str]:
            while line := waiting.popleft() if waiting else next(further, None):
                taken.append(line)
                if line.error:
                    return
                data = line.data.removeprefix(_BOM) if line.offset == 0 else line.data
                yield data.decode("utf-8", "surrogateescape") + "\n"

        while True:
            malformed = False
            try:
                for _ in csv.reader(feed(), delimiter=self._delimiter, strict=True):
                    yield from _joined(taken)
                    taken.clear()
            except csv.Error:
                malformed = True
            if not taken:
                return
            first, *rest = taken
            taken.clear()
            yield first
            if not malformed and not rest:
                return
            waiting.extendleft(reversed(rest))


def _joined(lines: Sequence[Line]) -> Iterator[Line]:
    """Yield the record of these lines, unless it is one blank line."""
    data = b"\n".join(line.data for line in lines)
    if data.strip():
        yield lines[0]._replace(data=data)


FORMAT = Csv
