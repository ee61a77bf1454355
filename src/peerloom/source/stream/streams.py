"""Read rows as they come: from an iterable of Python, lines from a pipe, or files that appear.

A stream is opened with its earlier record, and continues after that, as far as it can.
"""

import os
import select
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from peerloom.errors import SourceError
from peerloom.source.combined import PartsSource
from peerloom.source.format import Opening, SourceFormat
from peerloom.source.parts.json_lines import JsonlPart
from peerloom.source.parts.rows import RowsPart
from peerloom.source.storage.files import SourceFile, expand
from peerloom.source.storage.lines import Line

_CHUNK = 64 * 1024
_UNFINISHED = (".tmp", ".part", ".partial", ".crdownload")


class StreamedRow(NamedTuple):
    """A row of a stream: its value or its error, and the name of its file, if it is from one."""

    value: Any
    error: str = ""
    file: str = ""


class Recorded(NamedTuple):
    """The record of a stream: the number of rows, those of each file, and a way to read them again."""

    rows: int
    files: dict[str, int]
    read: Callable[[], Iterator[StreamedRow]]


class Stream(Protocol):
    """A source of rows in one order, perhaps without an end."""

    name: str

    def open(self, recorded: Recorded) -> Iterator[StreamedRow | None]:
        """Yield the rows after those recorded; None if there is none at present.

        Raises:
            SourceError: if it cannot be read, or its first rows are not those recorded.
        """
        ...


class IterableStream:
    """The rows of an iterable, or those that a function returns, given the number of rows recorded.

    An iterable is read from its start: the rows recorded before are compared, and left out.
    """

    def __init__(self, rows: Iterable[Any] | Callable[[int], Iterable[Any]]) -> None:
        self._rows = rows
        self.name = "function" if callable(rows) else "iterable"

    def open(self, recorded: Recorded) -> Iterator[StreamedRow | None]:
        """Yield the rows after those recorded; see `Stream`."""
        if callable(self._rows):
            yield from map(_plain, self._rows(recorded.rows))
            return
        rows = map(_plain, self._rows)
        for number, before in enumerate(recorded.read()):
            now = next(rows, None)
            if now is None or (now.value, bool(now.error)) != (before.value, bool(before.error)):
                raise SourceError(
                    f"row {number} of source= is not the one that was recorded: a run is resumed with the "
                    "same rows in the same order. Give a function instead, as source=lambda start: ..., "
                    "which returns the rows from number `start` on"
                )
        yield from rows


class PipeStream:
    """Lines of JSON from a pipe, or from standard input (`-`)."""

    def __init__(self, path: str) -> None:
        self.name = "stdin" if path == "-" else path
        self._path = path

    def open(self, recorded: Recorded) -> Iterator[StreamedRow | None]:
        """Yield the lines that arrive; those recorded before are expected to have been consumed."""
        pipe = sys.stdin.fileno() if self._path == "-" else os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        part = JsonlPart(SourceFile(self._path, self.name, -1))
        try:
            begun, rest, number = self._path == "-", b"", recorded.rows
            while True:
                if not select.select([pipe], [], [], 0)[0]:
                    yield None
                    continue
                data = os.read(pipe, _CHUNK)
                begun = begun or bool(data)
                if not data and not begun:  # no writer has opened it yet
                    yield None
                    continue
                *lines, rest = (rest + data).split(b"\n") if data else (rest, b"")
                for line in lines:
                    if line.strip():
                        entry = part.entry(Line(number, -1, line))
                        yield StreamedRow(entry.value, entry.error)
                        number += 1
                if not data:
                    return
        finally:
            if self._path != "-":
                os.close(pipe)


class FolderStream:
    """The rows of the files that match a pattern, of which further ones may appear.

    A file is read once it does not change between two looks. Names that begin with a dot, or end as those of
    unfinished files do, are left out. A file that cannot be read is one bad row.

    Args:
        pattern: the pattern, or a folder for all its files.
        form: the format of the files.
        idle: the seconds without a new file after which the stream ends; None for never.
        field: the dotted path of the field that becomes the row; None for the whole row.
    """

    def __init__(self, pattern: str, form: SourceFormat, idle: float | None, field: str | None) -> None:
        self.name = pattern
        self._pattern = os.path.join(pattern, "*") if os.path.isdir(pattern) else pattern
        self._form, self._idle, self._field = form, idle, field

    def open(self, recorded: Recorded) -> Iterator[StreamedRow | None]:
        """Yield the rows of the files in order; all but the last one recorded are complete."""
        files = list(recorded.files)
        done, last = set(files[:-1]), files[-1] if files else None
        seen: dict[str, tuple[int, int]] = {}
        since = time.monotonic()
        while True:
            ready: list[SourceFile] = []
            for file in self._present():
                if file.path not in done:
                    if seen.get(file.path) == (state := _state(file.path)):
                        ready.append(file)
                    seen[file.path] = state
            for file in sorted(ready, key=lambda file: (file.path != last, file.path)):
                skipped = recorded.files.get(file.path, 0)
                yield from self._rows(file, skipped)
                done.add(file.path)
                seen.pop(file.path)
                since = time.monotonic()
            if self._idle is not None and time.monotonic() - since > self._idle:
                return
            yield None

    def _present(self) -> list[SourceFile]:
        try:
            found = expand(self._pattern)
        except SourceError:  # there is none yet
            return []
        names = ((file, os.path.basename(file.path)) for file in found)
        return [file for file, name in names if not name.startswith(".") and not name.endswith(_UNFINISHED)]

    def _rows(self, file: SourceFile, skipped: int) -> Iterator[StreamedRow]:
        try:
            parts = list(self._form.parts(file.path, Opening(self._field)))
            for number, row in enumerate(PartsSource(parts, field=self._field).rows(0, 1)):
                if number >= skipped:
                    yield StreamedRow(row.data, row.error, file.path)
        except SourceError as error:
            if not skipped:
                yield StreamedRow(None, str(error), file.path)


def is_pipe(path: str) -> bool:
    """Return whether a path is standard input (`-`) or a named pipe."""
    try:
        return path == "-" or stat.S_ISFIFO(os.stat(path).st_mode)
    except OSError:
        return False


def _state(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _plain(row: Any) -> StreamedRow:
    """Return a row of Python as JSON values."""
    (entry,) = RowsPart([row]).read([0])
    return StreamedRow(entry.value, entry.error)
