"""A segment as its writer knows it: which tasks still need it, and how many of its bytes."""

from collections.abc import Callable
from pathlib import Path

from peerloom.sink.errors import SinkError
from peerloom.sink.files import GrowingFile
from peerloom.sink.journal.walk import Walk
from peerloom.sink.layout import SegmentName, list_segments
from peerloom.task import TaskId

_KEPT_SHARE = 4
"""A segment is copied once its live bytes are less than one part in so many."""


class Segment:
    """One segment, written by us (with a file) or adopted (without).

    Attributes:
        live: the bytes that each task has in it, of tasks that are not known to be done.
        live_bytes: their sum, once the segment is closed.
        closed: nothing will be written to it.
        doubtful: a write or sync of it failed, so that it must be neither written nor synced again.
        unreadable: it could not be read for a copy, so it stays as it is.
    """

    def __init__(self, name: SegmentName, path: Path, file: GrowingFile | None = None) -> None:
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
        """Whether it is worth copying what is live. A doubtful one is: the copy is made durable anew."""
        return not self.unreadable and (self.doubtful or self.live_bytes * _KEPT_SHARE < self.size)

    def add(self, id: TaskId, size: int) -> None:
        """A record of a task was written."""
        self.live[id] = self.live.get(id, 0) + size

    def close(self, size: int) -> None:
        """Nothing will be written any more; the segment is so long."""
        self.size, self.live_bytes, self.closed = size, sum(self.live.values()), True

    def settle(self, id: TaskId) -> None:
        """A task is done."""
        self.live_bytes -= self.live.pop(id, 0)

    def sync(self) -> None:
        """Make it durable, and close its file if it is closed. In any thread, but in one at a time.

        Raises:
            SinkError: if that failed; the segment is doubtful then.
        """
        closed = self.closed  # before the sync: what is written until then is covered by it
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


class Copying:
    """The live records of a closed segment on their way to the current one; see `JournalWriter`."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.found: list[tuple[TaskId, bytes]] = []
        self.into: Segment | None = None
        self._wanted = frozenset(segment.live)

    def read(self) -> None:
        """Read the records. In any thread.

        Raises:
            SinkError: if the segment could not be read.
        """
        try:
            data = _read(self.segment.path)
        except SinkError:
            self.segment.unreadable = True
            raise
        self.found = [(it.id, data[it.start : it.end]) for it in Walk(data, self._wanted.__contains__)]


def find_orphans(run_dir: Path, wants: Callable[[SegmentName], bool]) -> list[Segment]:
    """Segments nobody writes any more, with the ids in them, but for unreadable ones. In any thread."""
    orphans: list[Segment] = []
    for name in filter(wants, list_segments(run_dir)):
        segment = Segment(name, name.path(run_dir))
        try:
            data = _read(segment.path)
        except SinkError:
            continue
        for record in Walk(data, lambda _: True, check=False):
            segment.add(record.id, record.end - record.start)
        segment.close(len(data))
        orphans.append(segment)
    return orphans


def _read(path: Path) -> bytes:
    """What is in a segment; nothing if another who has adopted it, too, was faster."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise SinkError(f"{path} could not be read: {error.strerror}") from error
