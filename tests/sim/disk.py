"""The journal's folder in memory: segments of records, a page cache, and what power loss takes from it.

What is written is in the page cache: it survives the death of its writer, but not a power loss before the
next sync. A writer that was fenced off still has its file in its hands, whatever has become of its name.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from peerloom.task import TaskId

if TYPE_CHECKING:
    from processes import Process
    from world import World

TURN, CALL, BASE = "turn", "call", "base"
SEGMENT_RECORDS = 5


class Record:
    """One record. A CALL has a `token`, a TURN the `turns` that end at its hop, a BASE `turns` and `calls`.

    Once `durable`, it has been synced somewhere, and is to be there for good.
    """

    __slots__ = ("attempt", "calls", "durable", "hop", "id", "kind", "token", "turns")

    def __init__(
        self,
        kind: str,
        id: TaskId,
        attempt: int,
        hop: int,
        token: int = 0,
        turns: tuple[int, ...] = (),
        calls: tuple[int, ...] = (),
    ) -> None:
        self.kind, self.id, self.attempt, self.hop = kind, id, attempt, hop
        self.token, self.turns, self.calls = token, turns, calls
        self.durable = False


class SegmentName(NamedTuple):
    """Whose segment it is, and which."""

    kind: str
    index: int
    incarnation: int
    number: int


class Segment:
    """A file of records. The first `synced` of them are not in the cache only."""

    __slots__ = ("name", "records", "synced")

    def __init__(self, name: SegmentName) -> None:
        self.name = name
        self.records: list[Record] = []
        self.synced = 0

    def sync(self) -> None:
        """All that was written will be there after a power loss."""
        for record in self.records[self.synced :]:
            record.durable = True
        self.synced = len(self.records)


class Disk:
    """The folder of the journal, and whether there is room."""

    def __init__(self) -> None:
        self.segments: dict[SegmentName, Segment] = {}
        self.full = False
        self.dropped = 0

    def create(self, name: SegmentName) -> Segment:
        """A new, empty segment."""
        segment = self.segments[name] = Segment(name)
        return segment

    def is_there(self, segment: Segment, name: SegmentName) -> bool:
        """Whether the segment still has this name."""
        return self.segments.get(name) is segment

    def unlink(self, segment: Segment) -> None:
        """Remove a segment."""
        if self.segments.pop(segment.name, None):
            self.dropped += 1

    def lose_power(self, random: Callable[[], float]) -> list[Record]:
        """Of each segment a suffix of what was not synced is lost, or any of it.

        Returns:
            What is nowhere any more, but for what had been synced somewhere.
        """
        lost: list[Record] = []
        for segment in self.segments.values():
            synced, doubtful = segment.records[: segment.synced], segment.records[segment.synced :]
            pages, kept = random() < 0.3, int(random() * (len(doubtful) + 1))
            left = [r for place, r in enumerate(doubtful) if (random() < 0.5 if pages else place < kept)]
            lost += [record for record in doubtful if record not in left and not record.durable]
            segment.records = synced + left
        left = self.records()
        for segment in self.segments.values():
            segment.sync()
        return [record for record in lost if record not in left]

    def damage(self, random: Callable[[], float]) -> Record | None:
        """One record, anywhere, cannot be read any more; it is returned, unless there is a newer copy.

        An older one may be unlinked, as its copy has been synced.
        """
        segments = [segment for segment in self.segments.values() if segment.records]
        if not segments:
            return None
        segment = segments[int(random() * len(segments))]
        place = int(random() * len(segment.records))
        segment.synced -= place < segment.synced
        record = segment.records.pop(place)
        newer = segments[segments.index(segment) + 1 :]
        return None if any(record in each.records for each in newer) else record

    def records(self) -> set[Record]:
        """All that can be read."""
        return {record for segment in self.segments.values() for record in segment.records}


class Writer:
    """The journal of one process: a buffer, and segments of its own."""

    def __init__(self, world: "World", process: "Process") -> None:
        self._world = world
        self._process = process
        member = process.member
        self.owner = (member.kind, member.index, member.incarnation)
        self._numbers = 0
        self.buffer: list[Record] = []
        self.copies: list[Record] = []  # of a compaction, to be written again
        self.current: Segment | None = None
        self.closed: list[Segment] = []

    def add(self, record: Record) -> None:
        """To be written in the next pass."""
        self.buffer.append(record)

    @property
    def blocked(self) -> bool:
        """Whether there is something to write and no room for it."""
        return bool(self.buffer) and self._world.disk.full

    def write(self) -> bool:
        """Write what is in the buffer. False if there is no room: then nothing may leave this process."""
        if self.blocked:
            return False
        if self.buffer:
            self._append(self.buffer)
            self.buffer = []
        if self.copies and not self._world.disk.full:
            self._append(self.copies)
            self.copies = []
        return True

    def sync(self) -> None:
        """What was written will be there after a power loss."""
        for segment in (*self.closed, *([self.current] if self.current else ())):
            segment.sync()

    def close_current(self) -> None:
        """Write no more to the segment that was begun."""
        if self.current is not None:
            self.closed.append(self.current)
            self.current = None

    def name(self) -> SegmentName:
        """A name for another segment of this process."""
        self._numbers += 1
        return SegmentName(*self.owner, self._numbers)

    def _append(self, records: list[Record]) -> None:
        world = self._world
        if self.current is None:
            self.current = world.disk.create(self.name())
        self.current.records += records
        if world.scenario.power and world.random() < 0.2:
            self.sync()
        if len(self.current.records) >= SEGMENT_RECORDS:
            self.close_current()
