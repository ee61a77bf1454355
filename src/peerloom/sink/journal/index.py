"""Index the journal by task: scan it once, then look up the progress of each task.

A scan keeps the position of each wanted record, not its content, and keeps the segment's file open: its bytes
stay readable after compaction unlinks it. All segments are opened before any is read. Compaction unlinks a
segment only after copying its live records, so a record that is not in the opened files is in a segment that
a second listing shows; listings are repeated until one shows nothing new.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from peerloom.errors import CodecError
from peerloom.sink.errors import SinkError
from peerloom.sink.journal.chain import Chain, best_chain
from peerloom.sink.journal.records import TURN, Record, base_of, call_of, is_intact, turns_of
from peerloom.sink.journal.walk import Walk
from peerloom.sink.layout import JOURNAL, SegmentName, list_segments
from peerloom.task import SavedCall, TaskId

_LISTINGS = 100


class RecoveredTask(NamedTuple):
    """The progress of a task: all turns up to a hop, and the finished calls of the next turn."""

    attempt: int
    hop: int
    raw_turns: list[msgspec.Raw]
    calls: list[SavedCall]


class _OpenSegment:
    """An open segment, and the number of indexed records in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records = 0
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read_all(self) -> bytes:
        return os.pread(self._fd, os.fstat(self._fd).st_size, 0)

    def read_record(self, record: Record) -> bytes | None:
        """Return the bytes of a record that was found here; None if they have changed."""
        try:
            data = os.pread(self._fd, record.end - record.start, record.start)
        except OSError:
            return None
        same = len(data) == record.end - record.start and data[-4:] == record.crc.to_bytes(4, "little")
        return data if same and is_intact(data) else None

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class JournalIndex:
    """The journal's content at the time of the scan. Blocks; used by one thread at a time.

    Attributes:
        damaged: the number of damaged places that were skipped.
    """

    def __init__(self) -> None:
        self.damaged = 0
        self._records: dict[TaskId, list[tuple[Record, _OpenSegment]]] = {}
        self._segments: list[_OpenSegment] = []

    @classmethod
    def scan(cls, run_dir: Path, wants: Callable[[TaskId], bool]) -> "JournalIndex":
        """Index the wanted tasks in all segments of a run, which may be written at the same time.

        Raises:
            SinkError: if a segment cannot be opened, for lack of permissions or of file descriptors.
        """
        index = cls()
        try:
            index._open_all(run_dir)
            for segment in index._segments:
                index._read(segment, wants)
        except BaseException:
            index.close()
            raise
        index._segments = [segment for segment in index._segments if segment.records]
        return index

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, id: TaskId) -> bool:
        return id in self._records

    def ids(self) -> Iterable[TaskId]:
        """Return the tasks that are indexed and not yet popped."""
        return self._records.keys()

    def pop(self, id: TaskId) -> RecoveredTask | None:
        """Remove a task from the index, and return its progress; None if no usable progress is recorded."""
        found = self._records.pop(id, [])
        segments = dict(found)
        try:
            while chain := best_chain(segments):
                recovered = self._recover(chain, segments)
                if recovered is not None:
                    return recovered
            return None
        finally:
            for _, segment in found:
                segment.records -= 1
                if not segment.records:
                    segment.close()

    def close(self) -> None:
        """Clear the index and close the files."""
        self._records.clear()
        for segment in self._segments:
            segment.close()
        self._segments.clear()

    def _read(self, segment: _OpenSegment, wants: Callable[[TaskId], bool]) -> None:
        try:
            walk = Walk(segment.read_all(), wants)
        except OSError:  # a bad sector is damage like any other
            self.damaged += 1
            return
        for record in walk:
            self._records.setdefault(record.id, []).append((record, segment))
            segment.records += 1
        self.damaged += walk.damaged
        if not segment.records:
            segment.close()

    def _recover(self, chain: Chain, segments: dict[Record, _OpenSegment]) -> RecoveredTask | None:
        """Return the content of a chain; if a record is damaged, remove it from `segments`, return None."""
        raw_turns: list[msgspec.Raw] = []
        calls: list[SavedCall] = []
        for record in (*([chain.base] if chain.base is not None else []), *chain.turns, *chain.calls):
            data = segments[record].read_record(record)
            try:
                if data is None:
                    raise CodecError("the record has changed since it was found")
                if record is chain.base:
                    raw_turns, inherited = base_of(data)
                    calls += [] if chain.turns else inherited
                elif record.kind == TURN:
                    raw_turns += turns_of(data)
                else:
                    calls.append(call_of(data))
            except CodecError:
                self.damaged += 1
                del segments[record]
                return None
        return RecoveredTask(chain.attempt, chain.hop, raw_turns, calls)

    def _open_all(self, run_dir: Path) -> None:
        tried: set[SegmentName] = set()
        for _ in range(_LISTINGS):
            fresh = [name for name in list_segments(run_dir) if name not in tried]
            if not fresh:
                return
            tried.update(fresh)
            for name in fresh:
                path = name.path(run_dir)
                try:
                    self._segments.append(_OpenSegment(path))
                except FileNotFoundError:
                    continue  # just unlinked; its live records are in a segment that the next listing shows
                except OSError as error:
                    raise SinkError(
                        f"{path} could not be opened: {error.strerror}. Check its permissions, or raise "
                        "the limit of open files (ulimit -n); otherwise the calls in it are paid again"
                    ) from error
        raise SinkError(f"new segments appear in {run_dir / JOURNAL} faster than they can be opened")
