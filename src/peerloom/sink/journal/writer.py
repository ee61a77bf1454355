"""Write the journal of one incarnation in segments, and remove segments that are no longer needed.

Each pass of the event loop appends with one `write` call; `sync` makes the written records durable later, in
another thread. A segment is closed at a certain size, and unlinked when all tasks in it are done. The live
records of a segment that is mostly garbage are copied to the current segment:

    copy = writer.begin_copy()   # event loop
    copy.read()                  # thread
    writer.write_copy(copy)      # event loop
    writer.sync()                # thread
    writer.end_copy(copy)        # event loop

All methods must be called in the one thread that writes, except `sync` and `orphans`.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from threading import Lock

from peerloom.sink.errors import DiskFull, SinkError
from peerloom.sink.files import AppendFile, sync_folder
from peerloom.sink.journal.segment import Segment, SegmentCopy, find_orphans
from peerloom.sink.layout import SegmentName
from peerloom.task import TaskId

ROTATE_BYTES = 16 * 2**20


class JournalWriter:
    """Writer of the journal of one incarnation of a member. The first write creates its first segment.

    No other process may write with the same kind (in lower case, as in `peer`), index and incarnation. A
    segment is closed at `rotate_bytes`.
    """

    def __init__(
        self, run_dir: Path, kind: str, index: int, incarnation: int, *, rotate_bytes: int = ROTATE_BYTES
    ) -> None:
        self._run_dir = run_dir
        self._next_name = SegmentName(kind, index, incarnation, 0)
        self._rotate_bytes = rotate_bytes
        self._current: Segment | None = None
        self._closed: dict[SegmentName, Segment] = {}
        self._closed_of: dict[TaskId, list[Segment]] = {}
        self._dirty: set[Segment] = set()
        self._new_name = False
        self._lock = Lock()  # guards the two attributes above
        self._syncing = Lock()

    def write(self, records: Sequence[bytes], ids: Iterable[TaskId]) -> None:
        """Append records of these tasks, all or none.

        Raises:
            DiskFull: if there was no room. The same write may be tried again.
            SinkError: if writing failed otherwise. A retry writes to a new segment.
        """
        if records:
            self._write(records, ids)

    def sync(self) -> None:
        """Make all written records durable. Slow; any thread, also during a `write` in another.

        Raises:
            SinkError: if that failed for a segment. Its records may not survive a loss of power; the next
                write begins a new segment, and the live records are copied there later.
        """
        with self._syncing:
            with self._lock:
                dirty, self._dirty = self._dirty, set()
                new_name, self._new_name = self._new_name, False
            errors: list[SinkError] = []
            for segment in dirty:
                try:
                    segment.sync()
                except SinkError as error:
                    errors.append(error)
            try:
                if new_name:
                    sync_folder(self._next_name.path(self._run_dir).parent)
            except SinkError as error:
                self._new_name = True
                errors.append(error)
            if errors:
                raise errors[0]

    def closed_ids(self, limit: int) -> list[TaskId]:
        """Return up to `limit` tasks that closed segments are kept for, the least recently returned first."""
        ids = list(islice(self._closed_of, limit))
        for id in ids:
            self._closed_of[id] = self._closed_of.pop(id)
        return ids

    def settle(self, done: Iterable[TaskId]) -> None:
        """Mark tasks as done for good, and unlink the closed segments that no task needs any more."""
        current = self._current
        for id in done:
            if current is not None:
                current.live.pop(id, None)
            for segment in self._closed_of.pop(id, ()):
                segment.remove(id)
                if not segment.live:
                    self._unlink(segment)

    def begin_copy(self) -> SegmentCopy | None:
        """Return a copy of the closed segment with the fewest live bytes, or None. One at a time."""
        garbage = [segment for segment in self._closed.values() if segment.is_garbage]
        return SegmentCopy(min(garbage, key=lambda segment: segment.live_bytes)) if garbage else None

    def write_copy(self, copy: SegmentCopy) -> None:
        """Append the records of a copy that are still live."""
        live = [(id, record) for id, record in copy.records if id in copy.segment.live]
        if live:
            copy.target = self._write([record for _, record in live], [id for id, _ in live])

    def end_copy(self, copy: SegmentCopy) -> bool:
        """Unlink a segment whose copy is written and synced; return False if the copy is doubtful instead."""
        segment = copy.segment
        if copy.target is not None and copy.target.doubtful:
            return False
        if segment.name in self._closed:
            for id in segment.live:
                left = [other for other in self._closed_of.pop(id) if other is not segment]
                if left:
                    self._closed_of[id] = left
            self._unlink(segment)
        return True

    def orphans(self, slots: int) -> list[Segment]:
        """Return the segments of earlier incarnations that this member has to adopt. Slow; any thread.

        Segments that cannot be read are left for later.
        """
        kind, index, incarnation, _ = self._next_name

        def is_orphan(name: SegmentName) -> bool:
            earlier = name.incarnation < incarnation and name not in self._closed
            return earlier and name.kind == kind and name.slot % slots == index

        return find_orphans(self._run_dir, is_orphan)

    def adopt(self, orphans: Iterable[Segment]) -> None:
        """Manage segments of dead incarnations like this writer's own closed segments."""
        for segment in orphans:
            if segment.name not in self._closed:
                self._add_closed(segment)

    def close(self) -> None:
        """Close all files; the segments stay. No write may follow."""
        self._retire()
        with self._syncing, self._lock:
            for segment in self._dirty:
                if segment.file is not None:
                    segment.file.close()
                    segment.file = None
            self._dirty.clear()

    def _write(self, records: Sequence[bytes], ids: Iterable[TaskId]) -> Segment:
        segment = self._writable()
        file = segment.file
        assert file is not None, "only the files of closed segments are closed"
        try:
            file.append(b"".join(records))
        except SinkError as error:
            segment.doubtful |= not isinstance(error, DiskFull)
            try:
                file.roll_back()
            except SinkError:
                segment.doubtful = True
            raise
        file.checkpoint()
        for id, record in zip(ids, records, strict=True):
            segment.add(id, len(record))
        with self._lock:
            self._dirty.add(segment)
        if file.end >= self._rotate_bytes:
            self._retire()
        return segment

    def _writable(self) -> Segment:
        """Return the current segment, or a new one if there is none or it is doubtful."""
        if self._current is not None and self._current.doubtful:
            self._retire()
        if self._current is None:
            name = self._next_name
            path = name.path(self._run_dir)
            self._current = Segment(name, path, AppendFile(path))
            self._next_name = name._replace(number=name.number + 1)
            with self._lock:
                self._new_name = True
        return self._current

    def _retire(self) -> None:
        """Close the current segment; its file is closed by the next sync."""
        segment, self._current = self._current, None
        if segment is not None and segment.file is not None:
            segment.close(segment.file.end)
            with self._lock:
                self._dirty.add(segment)
            self._add_closed(segment)

    def _add_closed(self, segment: Segment) -> None:
        """Register a closed segment under its tasks; unlink it if no task needs it."""
        self._closed[segment.name] = segment
        for id in segment.live:
            self._closed_of.setdefault(id, []).append(segment)
        if not segment.live:
            self._unlink(segment)

    def _unlink(self, segment: Segment) -> None:
        del self._closed[segment.name]
        with suppress(OSError):  # a leftover segment does no harm; a later incarnation adopts it
            segment.path.unlink(missing_ok=True)
