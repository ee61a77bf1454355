"""Writing the journal: segments of one incarnation, and the removal of what nobody needs any more.

Appending is one `write` call for a pass of the event loop; `sync` makes what was written durable later, from
another thread. A segment is closed when it is long, and unlinked when the tasks in it are done. One that is
mostly garbage is copied away:

    copying = writer.begin_copy()   # event loop
    copying.read()                  # thread
    writer.write_copy(copying)      # event loop
    writer.sync()                   # thread
    writer.end_copy(copying)        # event loop

All methods are for the one thread that writes, but for `sync` and `orphans`.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from threading import Lock

from peerloom.sink.errors import DiskFull, SinkError
from peerloom.sink.files import GrowingFile, sync_folder
from peerloom.sink.journal.segment import Copying, Segment, find_orphans
from peerloom.sink.layout import SegmentName
from peerloom.task import TaskId

ROTATE_BYTES = 16 * 2**20


class JournalWriter:
    """The journal of one incarnation of a member. Its first segment is made when something is written.

    Args:
        run_dir: a run directory whose folders exist.
        kind: of the member, in small letters, as in `peer`.
        index: of the member.
        incarnation: of the member; no other process may write under the same three.
        rotate_bytes: a segment is closed once it is that long.
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
        self._lock = Lock()  # of the two above
        self._syncing = Lock()

    def write(self, records: Sequence[bytes], ids: Iterable[TaskId]) -> None:
        """Append records, all or none.

        Args:
            records: the records.
            ids: the task of each.

        Raises:
            DiskFull: if there was no room. The same may be written again.
            SinkError: if writing failed otherwise. It may be tried again, in a new segment.
        """
        if records:
            self._write(records, ids)

    def sync(self) -> None:
        """Make durable what was written before. Slow; in any thread, while `write` goes on in another.

        Raises:
            SinkError: if that failed for a segment. What was written to it may not survive a loss of
                power; the next write begins a new one, and what is live is copied there by and by.
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
        """Up to so many tasks that closed segments are kept for, those first that were asked for longest ago.

        At first these are the oldest.
        """
        ids = list(islice(self._closed_of, limit))
        for id in ids:
            self._closed_of[id] = self._closed_of.pop(id)
        return ids

    def settle(self, done: Iterable[TaskId]) -> None:
        """These tasks are done, for good; unlink the closed segments that nobody needs any more."""
        current = self._current
        for id in done:
            if current is not None:
                current.live.pop(id, None)
            for segment in self._closed_of.pop(id, ()):
                segment.settle(id)
                if not segment.live:
                    self._unlink(segment)

    def begin_copy(self) -> Copying | None:
        """The closed segment that is most worth copying, or None. One at a time."""
        garbage = [segment for segment in self._closed.values() if segment.is_garbage]
        return Copying(min(garbage, key=lambda segment: segment.live_bytes)) if garbage else None

    def write_copy(self, copying: Copying) -> None:
        """Append what was read and is still live.

        Raises:
            DiskFull: if there was no room.
            SinkError: if writing failed otherwise.
        """
        live = [(id, record) for id, record in copying.found if id in copying.segment.live]
        if live:
            copying.into = self._write([record for _, record in live], [id for id, _ in live])

    def end_copy(self, copying: Copying) -> bool:
        """Unlink a segment whose copy has been written, and synced without an error.

        Returns:
            False if the copy is in doubt all the same, so that the segment stays.
        """
        segment, into = copying.segment, copying.into
        if into is not None and into.doubtful:
            return False
        if segment.name in self._closed:
            for id in segment.live:
                left = [other for other in self._closed_of.pop(id) if other is not segment]
                if left:
                    self._closed_of[id] = left
            self._unlink(segment)
        return True

    def orphans(self, slots: int) -> list[Segment]:
        """The segments of dead incarnations that are ours to look after, for `adopt`. Slow; in any thread.

        Those are the segments of earlier incarnations; one that cannot be read is left for later.

        Args:
            slots: how many members of this kind there are; a segment is looked after by the one with the
                index that its own has modulo this.
        """
        kind, index, incarnation, _ = self._next_name

        def ours(name: SegmentName) -> bool:
            earlier = name.incarnation < incarnation and name not in self._closed
            return earlier and name.kind == kind and name.slot % slots == index

        return find_orphans(self._run_dir, ours)

    def adopt(self, orphans: Iterable[Segment]) -> None:
        """Look after segments of dead incarnations as if they were our own."""
        for segment in orphans:
            if segment.name not in self._closed:
                self._keep(segment)

    def close(self) -> None:
        """Close all files as they are; the segments stay. Write nothing after it."""
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
                file.cut_back()
            except SinkError:
                segment.doubtful = True
            raise
        file.keep()
        for id, record in zip(ids, records, strict=True):
            segment.add(id, len(record))
        with self._lock:
            self._dirty.add(segment)
        if file.end >= self._rotate_bytes:
            self._retire()
        return segment

    def _writable(self) -> Segment:
        """The current segment, a new one if there is none or it failed."""
        if self._current is not None and self._current.doubtful:
            self._retire()
        if self._current is None:
            name = self._next_name
            path = name.path(self._run_dir)
            self._current = Segment(name, path, GrowingFile(path))
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
            self._keep(segment)

    def _keep(self, segment: Segment) -> None:
        """Look after a closed segment."""
        self._closed[segment.name] = segment
        for id in segment.live:
            self._closed_of.setdefault(id, []).append(segment)
        if not segment.live:
            self._unlink(segment)

    def _unlink(self, segment: Segment) -> None:
        del self._closed[segment.name]
        with suppress(OSError):  # what is left lying is of no harm; a later incarnation adopts it
            segment.path.unlink(missing_ok=True)
