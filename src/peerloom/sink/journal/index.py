"""What the journal knows about tasks: read once, then asked task by task.

A scan keeps of each wanted record where it is, not what is in it, and holds the segment's file open: its
bytes stay readable when compaction unlinks it. All segments are opened before any is read. Compaction unlinks
a segment only after it has copied what is live in it, so a record that is not in the files opened is in one
that a second listing shows; listings are repeated until one shows nothing new.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from peerloom.errors import CodecError
from peerloom.sink.errors import SinkError
from peerloom.sink.journal.chain import Chain, best_chain
from peerloom.sink.journal.records import TURN, Record, base_of, call_of, is_whole, turns_of
from peerloom.sink.journal.walk import Walk
from peerloom.sink.layout import JOURNAL, SegmentName, list_segments
from peerloom.task import SavedCall, TaskId

_LISTINGS = 100


class RecoveredTask(NamedTuple):
    """How far a task had come: all turns up to a hop, and finished calls of the next turn."""

    attempt: int
    hop: int
    raw_turns: list[msgspec.Raw]
    calls: list[SavedCall]


class _Source:
    """An open segment, and how many remembered records are in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records = 0
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, start: int, length: int) -> bytes:
        pieces: list[bytes] = []
        while length and (piece := os.pread(self._fd, length, start)):
            pieces.append(piece)
            start, length = start + len(piece), length - len(piece)
        return b"".join(pieces)

    def read_all(self) -> bytes:
        return self.read(0, os.fstat(self._fd).st_size)

    def read_record(self, record: Record) -> bytes | None:
        """The bytes of a record that was found here; None if they are not what they were."""
        try:
            data = self.read(record.start, record.end - record.start)
        except OSError:
            return None
        same = len(data) == record.end - record.start and data[-4:] == record.crc.to_bytes(4, "little")
        return data if same and is_whole(data) else None

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class JournalIndex:
    """What the journal knew when it was scanned. Blocks; used by one thread at a time.

    Attributes:
        damaged: at how many places something was skipped that could not be read.
    """

    def __init__(self) -> None:
        self.damaged = 0
        self._places: dict[TaskId, list[tuple[Record, _Source]]] = {}
        self._sources: list[_Source] = []

    @classmethod
    def scan(cls, run_dir: Path, wants: Callable[[TaskId], bool]) -> "JournalIndex":
        """Read all segments of a run; those who write them may go on.

        Args:
            run_dir: the run directory.
            wants: which tasks to remember.

        Raises:
            SinkError: if a segment cannot be opened, for want of rights or of file descriptors.
        """
        memory = cls()
        try:
            memory._open_all(run_dir)
            for source in memory._sources:
                memory._read(source, wants)
        except BaseException:
            memory.close()
            raise
        memory._sources = [source for source in memory._sources if source.records]
        return memory

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, id: TaskId) -> bool:
        return id in self._places

    def ids(self) -> Iterable[TaskId]:
        """The tasks of which something is remembered, and not yet popped."""
        return self._places.keys()

    def pop(self, id: TaskId) -> RecoveredTask | None:
        """How far a task had come, or None if nothing of use is known. It is forgotten then."""
        places = self._places.pop(id, [])
        sources = {record: source for record, source in places}
        try:
            while chain := best_chain(sources):
                recalled = self._recall(chain, sources)
                if recalled is not None:
                    return recalled
            return None
        finally:
            for _, source in places:
                source.records -= 1
                if not source.records:
                    source.close()

    def close(self) -> None:
        """Forget everything and close the files."""
        self._places.clear()
        for source in self._sources:
            source.close()
        self._sources.clear()

    def _read(self, source: _Source, wants: Callable[[TaskId], bool]) -> None:
        try:
            walk = Walk(source.read_all(), wants)
        except OSError:  # a bad sector is damage like any other
            self.damaged += 1
            return
        for record in walk:
            self._places.setdefault(record.id, []).append((record, source))
            source.records += 1
        self.damaged += walk.damaged
        if not source.records:
            source.close()

    def _recall(self, chain: Chain, sources: dict[Record, _Source]) -> RecoveredTask | None:
        """What a chain says, or None if one of its records is no good, which is taken out of `sources`."""
        raw_turns: list[msgspec.Raw] = []
        calls: list[SavedCall] = []
        for record in (*([chain.base] if chain.base is not None else []), *chain.turns, *chain.calls):
            data = sources[record].read_record(record)
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
                del sources[record]
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
                    self._sources.append(_Source(path))
                except FileNotFoundError:
                    continue  # unlinked just now; what was live in it is in a segment listed next
                except OSError as error:
                    raise SinkError(
                        f"{path} could not be opened: {error.strerror}. See to its permissions, or raise "
                        "the limit of open files (ulimit -n); without it, what it holds is paid for again"
                    ) from error
        raise SinkError(f"new segments appear in {run_dir / JOURNAL} faster than they can be opened")
