"""Combine numbered parts of any kind into a source.

A part returns raw rows (`RawRow`); this module picks the field that becomes the row, and the label.
"""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any, cast

from peerloom.errors import SourceError
from peerloom.source.base import Position, SourceRow, bad_row, finish_row
from peerloom.source.parts.json_lines import JsonlPart
from peerloom.source.parts.part import CountedPart, RawRow, RowReader
from peerloom.source.positions import InputShape, MappedPositions, Positions, write_positions
from peerloom.source.storage.files import for_all
from peerloom.source.storage.lines import Line

AnyPart = JsonlPart | CountedPart


class PartsSource:
    """Rows from parts of any kind, in their order.

    Args:
        parts: the parts; their order is part of a row's identity.
        key: the field that labels a row; a row without it is a bad row.
        field: the dotted path of the field that becomes the row; a text becomes `{"text": ...}`; None for the
            whole row.
        limit: the number of rows to read, by position over all parts; None for all.
        license: the license that the input states, if any.

    Raises:
        SourceError: if `limit` is negative.
    """

    def __init__(
        self,
        parts: Sequence[AnyPart],
        *,
        key: str | None = None,
        field: str | None = None,
        limit: int | None = None,
        license: str | None = None,
    ) -> None:
        if limit is not None and limit < 0:
            raise SourceError(f"limit={limit}: must be 0 or more, or left out for all rows")
        self._parts = list(parts)
        self._key = key
        self._field = field
        self._limit = limit
        self.license = license
        self._readers = _ReaderCache()

    def rows(self, partition: int, partitions: int) -> Iterator[SourceRow]:
        """Yield the rows of one partition, in order; see `Source`."""
        for file, found in self._walk():
            part = self._parts[file]
            if isinstance(part, JsonlPart):
                if isinstance(found, Line) and (file + found.row) % partitions == partition:
                    yield self._row(file, part.entry(found))
            elif isinstance(found, int):
                wanted = range((partition - file) % partitions, found, partitions)
                with closing(part.open()) as reader:
                    yield from (self._row(file, entry) for entry in reader.read(wanted))

    def fetch(self, positions: Sequence[Position]) -> list[SourceRow]:
        """Return the rows at these positions."""
        wanted: dict[int, list[tuple[int, int]]] = {}
        for file, row, offset in sorted(positions):
            if not 0 <= file < len(self._parts):
                raise SourceError(f"there is no source file number {file}: the source has changed")
            wanted.setdefault(file, []).append((row, offset))
        found: dict[tuple[int, int], SourceRow] = {}
        for file, rows in wanted.items():
            for entry in self._fetch(self._parts[file], rows):
                found[file, entry.row] = self._row(file, entry)
        return [found.get((file, row)) or self._missing(file, row, offset) for file, row, offset in positions]

    def total(self) -> int:
        """Return the number of rows within the limit. Reads all parts that consist of lines."""
        return sum(1 if isinstance(found, Line) else found for _, found in self._walk())

    def index(self, path: Path) -> int:
        """Return the number of rows within the limit, and write the positions of lines to `path`.

        If one of the parts of lines is compressed, rows are only counted. See `Positioned`.
        """
        known = self.positions(path)
        if known is None and self._seekable:
            lines = ((file, found) for file, found in self._walk() if isinstance(found, Line))
            write_positions(path, self._shape, lines)
            known = self.positions(path)
        return self.total() if known is None else known.total

    def positions(self, path: Path) -> Positions | None:
        """Return the positions of all rows if they are known without reading, from the file of `index`."""
        if not any(isinstance(part, JsonlPart) for part in self._parts):
            return PartPositions(self._parts, self._limit, None)
        mapped = MappedPositions.open(path, self._shape) if self._seekable else None
        return PartPositions(self._parts, self._limit, mapped) if mapped is not None else None

    def first_rows(self) -> Iterator[tuple[str, SourceRow]]:
        """Yield the first row of each part that has one, with its name in errors."""
        for file, part in enumerate(self._parts):
            found: Iterator[RawRow] = iter(())
            if isinstance(part, JsonlPart):
                found = map(part.entry, islice(part.lines(), 1))
            elif part.count:
                found = self._fetch(part, [(0, -1)])
            yield from ((entry.where, self._row(file, entry)) for entry in found)

    def describe(self) -> dict[str, Any]:
        """Describe the parts."""
        return {"kind": self._kind, "files": [part.describe() for part in self._parts]}

    def fingerprint(self) -> dict[str, Any]:
        """Return the fingerprints of the parts, in order; see `peerloom.source.fingerprint`."""
        remote = any(part.remote for part in self._parts)
        files = for_all(lambda part: part.fingerprint(), self._parts, remote=remote)
        picked = {"field": self._field} if self._field is not None else {}
        return {"kind": self._kind, "files": files, "key": self._key, **picked, "limit": self._limit}

    @property
    def _kind(self) -> str:
        kinds = {part.kind for part in self._parts}
        return kinds.pop() if len(kinds) == 1 else "mixed"

    @property
    def _shape(self) -> InputShape:
        sizes = [part.size if isinstance(part, JsonlPart) else part.count for part in self._parts]
        return InputShape(sizes, self._limit)

    @property
    def _seekable(self) -> bool:
        return all(part.seekable for part in self._parts if isinstance(part, JsonlPart))

    def _walk(self) -> Iterator[tuple[int, Line | int]]:
        """Yield the content within the limit: the lines of each part, or its number of counted rows."""
        left = self._limit
        for file, part in enumerate(self._parts):
            if left == 0:
                return
            if isinstance(part, JsonlPart):
                for line in islice(part.lines(), left):
                    yield file, line
                    left = left - 1 if left is not None else None
            else:
                count = part.count if left is None else min(left, part.count)
                yield file, count
                left = left - count if left is not None else None

    def _fetch(self, part: AnyPart, rows: list[tuple[int, int]]) -> Iterator[RawRow]:
        if isinstance(part, JsonlPart):
            yield from part.fetch(rows)
            return
        numbers = [row for row, _ in dict.fromkeys(rows) if 0 <= row < part.count]
        with self._readers.borrow(part) as reader:
            yield from reader.read(numbers)

    def _row(self, file: int, entry: RawRow) -> SourceRow:
        position = (file, entry.row, entry.offset)
        value, error = entry.value, entry.error
        if not error and self._field is not None:
            value, error = _pick(value, self._field, entry.where)
        if error:
            return bad_row(position, error)
        row = finish_row(position, entry.where, value, self._key)
        if row.error:
            return row
        label = entry.label if self._key is None else row.label
        return row._replace(label=label, parent=entry.parent)

    def _missing(self, file: int, row: int, offset: int) -> SourceRow:
        where = f"{self._parts[file].name}:{row + 1}"
        return bad_row((file, row, offset), f"{where}: no such row any more: the file has changed")


class PartPositions(Positions):
    """The positions of all parts: mapped for lines, not needed for counted rows."""

    def __init__(self, parts: Sequence[AnyPart], limit: int | None, mapped: MappedPositions | None) -> None:
        self._parts = parts
        self._mapped = mapped
        self.lines: list[int] = []
        self.total = 0
        for file, part in enumerate(parts):
            if isinstance(part, JsonlPart):
                rows, lines = (mapped.rows[file], mapped.lines[file]) if mapped is not None else (0, 0)
            else:
                rows = lines = part.count if limit is None else min(part.count, limit - self.total)
            self.lines.append(lines)
            self.total += rows

    def find(self, file: int, row: int) -> tuple[int, int]:
        """Return the offset of a row (-1 if it is found by number), and its approximate size in bytes."""
        part = self._parts[file]
        if isinstance(part, CountedPart):
            return -1, part.size_of(row)
        return self._mapped.find(file, row) if self._mapped is not None else (0, 0)


class _ReaderCache:
    """A cache of at most one idle reader, shared by threads. The pickled form is empty."""

    # Rows are mostly fetched in consecutive chunks, and a Parquet row group is read from its start, so a
    # reader positioned after the last chunk is much faster than a new one.

    def __init__(self) -> None:
        self._idle: deque[tuple[CountedPart, RowReader]] = deque()

    def __reduce__(self) -> tuple[Any, ...]:
        return _ReaderCache, ()

    def __del__(self) -> None:
        self._take(None)

    @contextmanager
    def borrow(self, part: CountedPart) -> Generator[RowReader]:
        """Provide a reader of a part, and cache it afterwards unless an error occurs."""
        reader = self._take(part) or part.open()
        try:
            yield reader
        except BaseException:
            reader.close()
            raise
        self._take(None)
        self._idle.append((part, reader))

    def _take(self, part: CountedPart | None) -> RowReader | None:
        """Remove the idle reader, and return it if it reads the part, else close it."""
        try:
            owner, reader = self._idle.pop()
        except IndexError:
            return None
        if owner is part:
            return reader
        return reader.close()


def _pick(value: Any, field: str, where: str) -> tuple[Any, str]:
    """Return the row at a dotted path, or an error. A text becomes `{"text": ...}`."""
    at = ""
    for name in field.split("."):
        if not isinstance(value, dict):
            kind = "it is empty" if value is None else "it holds no fields"
            return None, f"{where}: no field {field!r} (source.field): {at or 'the row'}: {kind}"
        fields = cast("dict[str, Any]", value)
        if name not in fields:
            return None, f"{where}: no field {field!r} (source.field): {_hint(fields, name, at)}"
        value, at = fields[name], f"{at}.{name}" if at else name
    if isinstance(value, dict):
        return cast("dict[str, Any]", value), ""
    if isinstance(value, str):
        return {"text": value}, ""
    return None, f"{where}: field {field!r} (source.field) must be an object or a text to be a row"


def _hint(fields: dict[str, Any], name: str, at: str) -> str:
    close = get_close_matches(name, fields, n=1)
    if close:
        return f"did you mean {at + '.' if at else ''}{close[0]}?"
    return f"{at or 'the row'} has: {', '.join(list(fields)[:20]) or 'none'}"
