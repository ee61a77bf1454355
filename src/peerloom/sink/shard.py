"""Commit the rows of a shard, each of them exactly once.

The runtime assigns tasks to shards. A shard keeps the id of every row it has committed, in a bitmap, also
across take-overs; a duplicate row is dropped.
"""

from collections.abc import Sequence
from pathlib import Path

from peerloom.idset import IdSet
from peerloom.sink.errors import DiskFull, SinkError
from peerloom.sink.files import write_failed
from peerloom.sink.layout import PartName, lock_path
from peerloom.sink.lock import ShardLock
from peerloom.sink.part import PartWriter
from peerloom.sink.rows import Row
from peerloom.sink.takeover import recover
from peerloom.sink.totals import Totals
from peerloom.task import TaskId

ROTATE_BYTES = 64 * 2**20


class ShardFiles:
    """One shard, owned by one incarnation. Create it with `take`. Blocks; not thread-safe.

    Attributes:
        committed: the ids of all rows committed so far.
        totals: the totals of those rows.
    """

    committed: IdSet
    totals: Totals

    def __init__(
        self, run_dir: Path, name: PartName, lock: ShardLock, state: tuple[IdSet, Totals], rotate_bytes: int
    ) -> None:
        self.committed, self.totals = state
        self._run_dir = run_dir
        self._next_name = name
        self._lock = lock
        self._rotate_bytes = rotate_bytes
        self._part: PartWriter | None = None
        self._failed: SinkError | None = None
        self._closed = False

    @classmethod
    def take(
        cls, run_dir: Path, shard: int, incarnation: int, *, rotate_bytes: int = ROTATE_BYTES
    ) -> "ShardFiles":
        """Take over a shard, new or from an earlier incarnation, which may still be running.

        Args:
            run_dir: a run directory whose folders exist (see `RunDir`).
            shard: the shard's number.
            incarnation: a number greater than any that has taken this shard.
            rotate_bytes: the file size at which a part is closed.

        Raises:
            ShardLost: if this incarnation, or a later one, has taken the shard.
            DiskFull: if there is no room to copy a part that an earlier incarnation left open. Nothing is
                lost; a later incarnation may try again.
            SinkError: if a file could not be read or written.
            RunDirError: if an index is missing, or of another version.
        """
        path = lock_path(run_dir, shard)
        try:
            lock = ShardLock(path, incarnation)
            try:
                state = recover(run_dir, shard)
                lock.end_takeover()
            except BaseException:
                lock.close()
                raise
        except OSError as error:
            raise write_failed(Path(error.filename or path), error) from error
        return cls(run_dir, PartName(shard, incarnation, 0), lock, state, rotate_bytes)

    def commit(self, rows: Sequence[Row]) -> None:
        """Make rows durable, all or none, and skip those that are committed already.

        Raises:
            DiskFull: if there was no room; none of the rows was kept, and the call may be tried again.
            ShardLost: if a later incarnation has taken the shard.
            SinkError: for any other failure; the rows may or may not be on disk. This object is unusable:
                take the shard again.
        """
        if self._failed is not None:
            raise type(self._failed)(*self._failed.args) from self._failed
        fresh: dict[TaskId, Row] = {}
        for row in rows:
            if row.id not in self.committed:
                fresh.setdefault(row.id, row)
        if not fresh:
            return
        part = self._part = self._part or self._begin_part()
        try:
            totals = part.append(list(fresh.values()))
        except DiskFull:
            raise
        except BaseException as error:  # the content of the files is uncertain now
            self._failed = (
                error if isinstance(error, SinkError) else SinkError(f"commit broke off: {error!r}")
            )
            raise
        self.committed.update(fresh)
        self.totals.add(totals)
        if part.size >= self._rotate_bytes:
            part.close()
            self._part = None

    def close(self) -> None:
        """Close the open part and the shard. No commit may follow."""
        if self._closed:
            return
        self._closed = True
        if self._part is not None and self._failed is None:
            self._part.close()
        elif self._part is not None:
            self._part.abandon()  # without a closing record, so that a take-over copies its valid prefix
        self._failed = self._failed or SinkError(f"shard {self._next_name.shard} is closed")
        self._lock.close()

    def _begin_part(self) -> PartWriter:
        name = self._next_name
        self._next_name = name._replace(number=name.number + 1)
        return PartWriter(self._run_dir, name, self._lock.check)
