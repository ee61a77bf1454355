"""Rows from JSON Lines files, plain or compressed.

Each partition streams through the files and decodes only its own lines, so partitions share nothing.
Bytes are checked line by line: one bad line costs one row.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from peerloom.errors import SourceError
from peerloom.source.base import Position, SourceRow, bad_row, checked_limit, finish_row
from peerloom.source.files import find_files
from peerloom.source.fingerprint import file_fingerprint
from peerloom.source.lines import Line, open_file, read_line_at, read_lines
from peerloom.source.positions import Positions, Shape, write_positions

_BOM = b"\xef\xbb\xbf"


class JsonlSource:
    """JSON Lines: one object a line, UTF-8, `.jsonl`, `.jsonl.gz` or `.jsonl.zst`.

    Args:
        path: a file, a glob pattern, or several of them; the order of files is part of a row's identity.
        key: the field that labels a row; a row without it is a bad row.
        limit: read the first so many rows only, by position over all files.

    Raises:
        SourceError: if no file matches, a file cannot be read, or `limit` is negative.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        key: str | None = None,
        limit: int | None = None,
    ) -> None:
        patterns = [path] if isinstance(path, str | os.PathLike) else path
        self._files = find_files([os.fspath(pattern) for pattern in patterns])
        self._key = key
        self._limit = checked_limit(limit)

    def rows(self, partition: int, partitions: int) -> Iterator[SourceRow]:
        """The rows of one partition, in order; see `Source`."""
        for file, line in self._lines():
            if (file + line.row) % partitions == partition:
                yield self._row(file, line)

    def fetch(self, positions: Sequence[Position]) -> list[SourceRow]:
        """The rows at these positions: at their offset in a plain file, by reading through a packed one."""
        found: dict[tuple[int, int], SourceRow] = {}
        scans: dict[int, set[int]] = {}
        with ExitStack() as stack:
            opened: dict[int, BinaryIO] = {}
            for file, row, offset in sorted(positions):
                if not 0 <= file < len(self._files):
                    raise SourceError(f"there is no source file number {file}: the source has changed")
                if offset < 0 or not self._files[file].seekable:
                    scans.setdefault(file, set()).add(row)
                    continue
                if file not in opened:
                    opened[file] = stack.enter_context(open_file(self._files[file]))
                data = read_line_at(self._files[file], opened[file], offset)
                if data is not None:
                    found[file, row] = self._row(file, Line(row, offset, data))
        for file, wanted in scans.items():
            found.update(self._scan(file, wanted))
        return [found.get((file, row)) or self._gone(file, row, offset) for file, row, offset in positions]

    def total(self) -> int:
        """How many rows there are within the limit. Reads the files through."""
        return sum(1 for _ in self._lines())

    def index(self, path: Path) -> int:
        """How many rows there are within the limit; leaves their positions at `path`, see `Positioned`.

        Compressed files have no positions: they are counted only.
        """
        if not all(file.seekable for file in self._files):
            return self.total()
        there = self.positions(path)
        return there.total if there is not None else write_positions(path, self._shape, self._lines())

    def positions(self, path: Path) -> Positions | None:
        """What `index` has left at `path`, if it is whole and for these files at their present sizes."""
        return Positions.open(path, self._shape)

    def describe(self) -> dict[str, Any]:
        """The files and their sizes in bytes."""
        return {"kind": "jsonl", "files": [{"path": file.path, "bytes": file.size} for file in self._files]}

    def fingerprint(self) -> dict[str, Any]:
        """The content of the files, in their order; see `peerloom.source.fingerprint`."""
        files = [file_fingerprint(file.path) for file in self._files]
        return {"kind": "jsonl", "files": files, "key": self._key, "limit": self._limit}

    @property
    def _shape(self) -> Shape:
        return Shape([file.size for file in self._files], self._limit)

    def _lines(self) -> Iterator[tuple[int, Line]]:
        """All lines that are not blank, within the limit, with the index of their file."""
        lines = ((index, line) for index, file in enumerate(self._files) for line in read_lines(file))
        return islice(lines, self._limit)

    def _scan(self, file: int, wanted: set[int]) -> Iterator[tuple[tuple[int, int], SourceRow]]:
        last = max(wanted)
        for line in read_lines(self._files[file]):
            if line.row in wanted:
                yield (file, line.row), self._row(file, line)
            if line.row >= last:
                return

    def _row(self, index: int, line: Line) -> SourceRow:
        file = self._files[index]
        position = (index, line.row, line.offset if file.seekable else -1)
        if line.error:
            return bad_row(position, line.error)
        data = line.data.removeprefix(_BOM) if line.row == 0 else line.data
        where = f"{file.name}:{line.row + 1}"
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            return bad_row(position, _explain(where, data, error))
        return finish_row(position, where, value, self._key)

    def _gone(self, file: int, row: int, offset: int) -> SourceRow:
        name = self._files[file].name
        return bad_row((file, row, offset), f"{name}:{row + 1}: no such row any more: the file has changed")


def _explain(where: str, data: bytes, error: orjson.JSONDecodeError) -> str:
    """Why a line is no JSON, where in it, and what to do where the cause is a common one."""
    try:
        text = data.decode()
    except UnicodeDecodeError as wrong:
        hint = "; it looks like UTF-16" if data[:2] in {b"\xff\xfe", b"\xfe\xff"} else ""
        return (
            f"{where}: not UTF-8 at byte {wrong.start} (0x{data[wrong.start]:02x}){hint}: "
            "convert the file, for example with iconv -t UTF-8"
        )
    if "\0" in text:
        return f"{where}: not JSON: there is a NUL character; UTF-16 or binary data is not read"
    if text.strip() in {"[", "{"}:
        return f"{where}: not JSON Lines: an object must not span lines; write each on a line of its own"
    here = text[error.pos : error.pos + 8]
    if here.startswith(("NaN", "Infinity")):
        return f"{where}:{error.colno}: not JSON: {here.rstrip(',]} ')} is no JSON number; write null"
    return f"{where}:{error.colno}: not JSON: {error.msg}"
