"""Track the live records in a segment of the journal, and copy them to another segment."""

from collections.abc import Callable
from pathlib import Path

from peerloom.sink.errors import SinkError
from peerloom.sink.files import AppendFile
from peerloom.sink.journal.walk import Walk
from peerloom.sink.layout import SegmentName, list_segments
from peerloom.task import TaskId

_GARBAGE_RATIO = 4
"""A closed segment is worth copying once its size is more than this multiple of its live bytes."""


class Segment:
    """One segment, written by this process (with a file) or adopted (without).

    Attributes:
        live: the number of bytes of each unfinished task in the segment.
        live_bytes: their sum, once the segment is closed.
        closed: True if nothing will be written to it.
        doubtful: True if a write or sync failed, so that it must be neither written nor synced again.
        unreadable: True if it could not be read for a copy, so that it stays unchanged.
    """

    def __init__(self, name: SegmentName, path: Path, file: AppendFile | None = None) -> None:
        self.name = name
        self.path = path
        self.file = file
        self.size = 0
        self.live: dict[TaskId, int] = {}
        self.live_bytes = 0
        self.closed = False
        self.doubtful = False
        self.unreadable = False

    @property
    def is_garbage(self) -> bool:
        """Whether to copy the live records. A doubtful segment is copied to make its records durable."""
        return not self.unreadable and (self.doubtful or self.live_bytes * _GARBAGE_RATIO < self.size)

    def add(self, id: TaskId, size: int) -> None:
        """Count a written record of a task."""
        self.live[id] = self.live.get(id, 0) + size

    def close(self, size: int) -> None:
        """Mark the segment as closed, with its final size."""
        self.size, self.live_bytes, self.closed = size, sum(self.live.values()), True

    def remove(self, id: TaskId) -> None:
        """Stop counting a task, which is done."""
        self.live_bytes -= self.live.pop(id, 0)

    def sync(self) -> None:
        """Make the segment durable, and close its file if it is closed. Any thread, but one at a time."""
        closed = self.closed  # read before the sync, which covers everything written until now
        if self.file is None:
            return
        try:
            if not self.doubtful and self.live:
                self.file.sync()
        except SinkError:
            self.doubtful = True
            raise
        finally:
            if closed:
                self.file.close()
                self.file = None


class SegmentCopy:
    """A copy of the live records of a closed segment to the current one; see `JournalWriter`.

    Attributes:
        segment: the closed segment.
        records: the records that were read, with their tasks.
        target: the segment they were written to; None before that.
    """

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.records: list[tuple[TaskId, bytes]] = []
        self.target: Segment | None = None
        self._ids = frozenset(segment.live)

    def read(self) -> None:
        """Read the live records. Any thread."""
        try:
            data = _read(self.segment.path)
        except SinkError:
            self.segment.unreadable = True
            raise
        self.records = [(it.id, data[it.start : it.end]) for it in Walk(data, self._ids.__contains__)]


def find_orphans(run_dir: Path, wants: Callable[[SegmentName], bool]) -> list[Segment]:
    """Return the wanted segments with the ids in them, without unreadable ones. Any thread.

    No process may write to them any more.
    """
    orphans: list[Segment] = []
    for name in filter(wants, list_segments(run_dir)):
        segment = Segment(name, name.path(run_dir))
        try:
            data = _read(segment.path)
        except SinkError:
            continue
        for record in Walk(data, lambda _: True):
            segment.add(record.id, record.end - record.start)
        segment.close(len(data))
        orphans.append(segment)
    return orphans


def _read(path: Path) -> bytes:
    """Return the content of a segment; empty if another member that adopted it has removed it."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise SinkError(f"{path} could not be read: {error.strerror}") from error
