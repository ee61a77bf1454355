"""Record the rows of a stream in a file of the run, and read them from there.

The driver records each row before any feeder sees it, so its number identifies it for good, and a resumed run
has all rows that an earlier session saw. A feeder follows the file. The last line tells why the record ends:
at the end of the stream, or at the limit, which may grow.
"""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from peerloom.errors import SourceError
from peerloom.source.base import Position, SourceRow
from peerloom.source.combined import PartsSource
from peerloom.source.parts.json_lines import JsonlPart
from peerloom.source.storage.files import SourceFile
from peerloom.source.storage.lines import Line
from peerloom.source.stream.streams import Recorded, Stream, StreamedRow

AHEAD = 4096  # rows recorded before they are admitted
_PAUSE = 0.1  # seconds between two looks
_SYNC = 0.2  # seconds between two syncs to disk


class StreamSource:
    """A source whose rows are known only once they are recorded.

    Args:
        stream: the stream.
        key: the field that labels a row; a row without it is a bad row.
        limit: the number of rows to read; None for all there will be.
    """

    def __init__(self, stream: Stream, *, key: str | None = None, limit: int | None = None) -> None:
        if limit is not None and limit < 0:
            raise SourceError(f"limit={limit}: must be 0 or more, or left out for all rows")
        self.stream = stream
        self.key = key
        self.limit = limit

    def rows(self, partition: int, partitions: int) -> Iterator[SourceRow]:
        """Raise SourceError: the rows are read from the record of a run."""
        raise self._unknown()

    def fetch(self, positions: Sequence[Position]) -> list[SourceRow]:
        """Raise SourceError, like `rows`."""
        raise self._unknown()

    def total(self) -> int:
        """Raise SourceError: there is no total."""
        raise self._unknown()

    def describe(self) -> dict[str, Any]:
        """Describe the stream by its name."""
        return {"kind": "stream", "name": self.stream.name}

    def fingerprint(self) -> dict[str, Any]:
        """Return the kind, the key, and the limit: the rows themselves are recorded."""
        return {"kind": "stream", "key": self.key, "limit": self.limit}

    def _unknown(self) -> SourceError:
        return SourceError(
            f"the rows of {self.stream.name} are known only while a run reads them: give a file or a list"
        )


class RecordedSource(PartsSource):
    """The rows recorded in a file, which may grow."""

    def __init__(self, path: Path, *, key: str | None, name: str) -> None:
        self._path = str(path)
        super().__init__([_RecordedPart(SourceFile(self._path, name, -1))], key=key)

    def follow(self, partition: int, partitions: int) -> Iterator[SourceRow | None]:
        """Yield the rows of one partition, until the record ends; None if there is no further one yet."""
        part = self._parts[0]
        assert isinstance(part, _RecordedPart)
        row = offset = 0
        with open(self._path, "rb") as file:
            while True:
                data = file.readline()
                if not data.endswith(b"\n"):
                    file.seek(offset)
                    yield None
                elif _is_end(data):
                    return
                else:
                    if row % partitions == partition:
                        yield self._row(0, part.entry(Line(row, offset, data)))
                    row, offset = row + 1, offset + len(data)


class _RecordedPart(JsonlPart):
    """The file of recorded rows."""

    def value(self, line: Line, where: str) -> tuple[Any, str]:
        """Return the recorded row or error."""
        streamed = _decoded(line.data)
        return streamed.value, streamed.error


class Recorder:
    """Records the rows of a stream, in a thread that does not keep the process alive.

    Args:
        source: the stream, its key, and its limit.
        path: the file of the record.

    Attributes:
        rows: the number of rows recorded.
    """

    def __init__(self, source: StreamSource, path: Path) -> None:
        self._source = source
        self._path = path
        self.rows = 0
        self._ended = False
        self._error: SourceError | None = None
        self._wanted = 0
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._file = -1
        self._synced = 0.0

    def begin(self) -> RecordedSource:
        """Read the record, without a torn last line or an outgrown limit, and return its source.

        Blocks.

        Raises:
            SourceError: if the record cannot be read or written.
        """
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            files, good = self._scan()
            os.ftruncate(self._file, good)
        except OSError as error:
            raise SourceError(f"{self._path} cannot be used: {error.strerror}") from error
        recorded = Recorded(self.rows, files, self._recorded)
        if not self._ended:
            threading.Thread(target=self._record, args=(recorded,), daemon=True, name="source").start()
        return RecordedSource(self._path, key=self._source.key, name=self._source.stream.name)

    def advance(self, admitted: int) -> bool:
        """Record a bounded number of rows more than are admitted, and sync; return whether the stream ended.

        Blocks.

        Raises:
            SourceError: if the stream cannot be read any more, or ended without a row.
        """
        self._wanted = admitted + AHEAD
        self._sync()
        if self._error is not None:
            raise self._error
        if self._ended and not self.rows:
            raise SourceError(f"{self._source.stream.name} ended without a row")
        return self._ended

    def _sync(self) -> None:
        with self._lock:
            if self._file >= 0:
                os.fdatasync(self._file)

    def close(self) -> None:
        """Stop recording. A row that the stream is about to return is not recorded."""
        self._stopped.set()
        self._sync()
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    def _scan(self) -> tuple[dict[str, int], int]:
        """Count the rows; return those of each file, and the length of the record that is good."""
        files: dict[str, int] = {}
        good = 0
        with open(self._path, "rb") as file:
            for data in file:
                if not data.endswith(b"\n"):
                    break
                if _is_end(data):
                    limit = self._source.limit
                    self._ended = b"limit" not in data or (limit is not None and limit <= self.rows)
                    good += len(data) if self._ended else 0
                    break
                streamed = _decoded(data)
                if streamed.file:
                    files[streamed.file] = files.get(streamed.file, 0) + 1
                self.rows += 1
                good += len(data)
        return files, good

    def _recorded(self) -> Iterator[StreamedRow]:
        with open(self._path, "rb") as file:
            for _, data in zip(range(self.rows), file, strict=False):
                yield _decoded(data)

    def _record(self, recorded: Recorded) -> None:
        limit = self._source.limit
        try:
            for streamed in self._source.stream.open(recorded) if self.rows != limit else ():
                if streamed is not None:
                    if not self._write(_encoded(streamed)):
                        return
                    self.rows += 1
                    if self.rows == limit:
                        break
                if not self._may_go_on(wait=streamed is None):
                    return
            if self._write(b'{"end":"%b"}\n' % (b"limit" if self.rows == limit else b"source")):
                self._ended = True
        except SourceError as error:
            self._error = error
        except Exception as error:
            name = self._source.stream.name
            why = f"{type(error).__name__}: {error}"
            self._error = SourceError(f"{name} failed after {self.rows} rows: {why}")

    def _may_go_on(self, *, wait: bool) -> bool:
        """Wait until a row is wanted, at least once if `wait`; return False if recording was stopped."""
        while wait or self.rows >= self._wanted:
            if self._stopped.wait(_PAUSE):
                return False
            wait = False
        return True

    def _write(self, data: bytes) -> bool:
        """Append a line; return False if recording was stopped."""
        with self._lock:
            if self._stopped.is_set() or self._file < 0:
                return False
            while data:
                data = data[os.write(self._file, data) :]
            if time.monotonic() - self._synced > _SYNC:
                os.fdatasync(self._file)
                self._synced = time.monotonic()
        return True


def _encoded(streamed: StreamedRow) -> bytes:
    fields = {"error": streamed.error} if streamed.error else {"row": streamed.value}
    return orjson.dumps({**fields, **({"file": streamed.file} if streamed.file else {})}) + b"\n"


def _decoded(data: bytes) -> StreamedRow:
    fields = orjson.loads(data)
    return StreamedRow(fields.get("row"), fields.get("error", ""), fields.get("file", ""))


def _is_end(data: bytes) -> bool:
    return data.startswith(b'{"end":')
