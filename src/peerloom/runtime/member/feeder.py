"""Drives a feeder: takes rows from the source as permits come free, and starts their tasks.

A row that is malformed never reaches an agent: it becomes a failed task and goes straight to its sink,
under a permit like any other. A task that begins again does so with what the journal knows of it: the
feeder reads that once when it has learnt what is in flight, and again for tasks that were lost.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable

from peerloom.errors import RowError
from peerloom.idset import partition_of
from peerloom.protocol.feeder import Feeder
from peerloom.protocol.messages import Ack, Ask, Deliver, Delivered, Drain, Item, Message, Pace, Passed
from peerloom.protocol.quarantine import POISON, POISON_AFTER
from peerloom.protocol.view import TO_SINK
from peerloom.runtime.member.admission import AdmissionQueue
from peerloom.runtime.member.compaction import JournalCompactor
from peerloom.runtime.member.host import Host
from peerloom.runtime.member.journal import open_journal
from peerloom.runtime.member.rows import finish
from peerloom.runtime.member.spec import MemberSpec, MemberStats
from peerloom.runtime.steps.error_counts import ErrorCounts
from peerloom.runtime.steps.executor import routed
from peerloom.runtime.transport.base import Link
from peerloom.sink.journal.index import JournalIndex, RecoveredTask
from peerloom.sink.layout import JOURNAL, POSITIONS
from peerloom.source.base import Source, SourceRow
from peerloom.task import FAILED, End, Header, Task, TaskId, encode, new_task

CHUNK = 500  # most rows taken from the source before other messages get their turn


class FeederHost(Host):
    """One feeder, for one partition of the source."""

    machine: Feeder

    def __init__(self, brief: MemberSpec, link: Link) -> None:
        settings = brief.settings
        in_flight = share(settings.in_flight, brief.member.index, settings.partitions)
        machine = Feeder(brief.member.name, in_flight, brief.program.workflow.roles[0])
        super().__init__(machine, link, settings.deliver_seconds)
        assert brief.source is not None
        self._brief = brief
        self._source: Source = brief.source
        self._offers = AdmissionQueue(
            self._source, brief.member.index, settings, machine.past, brief.run_dir / POSITIONS
        )
        self._errors = ErrorCounts()
        self._reading = False
        self._offsets: dict[TaskId, int] = {}  # of the rows in flight, to read them again
        self._fetching = False
        self._memory: JournalIndex | None = None

    async def _open(self) -> None:
        if self._brief.settings.journal:
            self._journal = open_journal(self._brief, self)

    async def _close(self) -> None:
        if self._memory is not None:
            self._memory.close()

    def _begin(self) -> None:
        if self._journal is not None:
            partitions = self._brief.settings.partitions
            tidying = JournalCompactor(self._journal, partitions, self._ask_feeders)
            self.spawn(tidying.run())

    def _take_delivery(self, message: Deliver) -> Delivered:
        return Delivered(self.machine.view.number, message.seq, False)

    def _take_other(self, message: Message) -> Message | None:
        match message:
            case Ack():
                for id in self.machine.ack(message):
                    self._offsets.pop(id, None)
            case Drain():
                self.machine.drain(message)
            case Ask():
                return self.machine.done(message)
            case Pace() if self.machine.pace(message):
                partitions = self._brief.settings.partitions
                self.machine.in_flight = share(message.in_flight, self._brief.member.index, partitions)
            case Passed():
                self.machine.passed(message)
            case _:
                pass
        return None

    def _work(self) -> None:
        if not self._fetching and self.machine.lost():
            self._fetching = True
            self.spawn(self._admit_again(self.machine.lost()))
        if self._remembers():
            self._admit_new()
        isolate = self.machine.isolate()
        if isolate is not None:
            self.tell(isolate)
        exhausted = self.machine.exhausted()
        if exhausted is not None:
            self.tell(exhausted)

    def _admit_new(self) -> None:
        if self.machine.room and self._offers.low and not self._reading:
            self._reading = True
            self.spawn(self._read_on())
        room = self.machine.room
        for _ in range(CHUNK):
            if not room:
                return
            offer = self._offers.take()
            if offer is None:
                if self._offers.over:
                    self.machine.dry()
                return
            id, row = offer
            if not self.machine.knows(id):
                self._offsets[id] = row.offset
                self._start(id, row, self._memory)
                room -= 1
        self.poke()

    def _remembers(self) -> bool:
        """Whether new tasks may be admitted: not before it is known how far earlier attempts came."""
        if self._journal is None or self._memory is not None:
            return True
        if self.machine.room and not self._fetching:
            self._fetching = True
            self.spawn(self._remember())
        return False

    async def _remember(self) -> None:
        knows, mine = self.machine.knows, self._brief.member.index
        partitions = self._brief.settings.partitions
        self._memory = await self._scan(lambda id: partition_of(id, partitions) == mine and not knows(id))
        self._fetching = False
        self.poke()

    async def _read_on(self) -> None:
        try:
            await self._offers.read()
        finally:
            self._reading = False
        self.poke()

    async def _admit_again(self, ids: list[TaskId]) -> None:
        positions = [(id.file, id.row, self._offsets.get(id, self._offers.offset(id))) for id in ids]
        rows = await asyncio.to_thread(self._source.fetch, positions)
        memory = await self._scan(set(ids).__contains__) if self._journal is not None else None
        self._fetching = False
        for id, row in zip(ids, rows, strict=True):
            self._start(id, row, memory)
        if memory is not None:
            memory.close()
        self.poke()

    async def _scan(self, wants: Callable[[TaskId], bool]) -> JournalIndex:
        memory = await asyncio.to_thread(JournalIndex.scan, self._brief.run_dir, wants)
        if memory.damaged:
            self.notice(
                f"{memory.damaged} damaged records in {self._brief.run_dir / JOURNAL}: "
                "the calls in them will be made, and paid, again"
            )
        return memory

    def _start(self, id: TaskId, row: SourceRow, memory: JournalIndex | None) -> None:
        """Send a task on its way: to the next role, or straight to its sink if it cannot start."""
        recalled = memory.pop(id) if memory is not None and id in memory else None
        task = self._new_task(id, row, recalled)
        deaths = self.machine.deaths(id, task.header.hop)
        if deaths:
            task = task.with_next(poisonous(task, deaths))
        if recalled is not None and self._journal is not None:
            self._journal.base(task.header, recalled.raw_turns, recalled.calls)
        if task.end is None:
            self.machine.admit([Item(task.header, encode(task))], task.next_role)
        else:
            self.machine.admit([Item(task.header, finish(task, self._brief, self._errors))], TO_SINK)

    def _new_task(self, id: TaskId, row: SourceRow, recalled: RecoveredTask | None) -> Task:
        program = self._brief.program
        task = new_task(
            Header(id, self.machine.attempt(), recalled.hop if recalled else 0),
            row.data,
            seed=task_seed(self._brief.settings.seed, id),
            label=row.label,
            started=time.time(),
            raw_turns=recalled.raw_turns if recalled else (),
            calls=recalled.calls if recalled else (),
        )
        try:
            if row.error:
                raise RowError(row.error)
            if program.check_row is not None:
                program.check_row(row.data)
        except BaseException as error:
            return task.with_next(self._errors.classify(error, RowError.reason, task))
        return routed(task, program.workflow, self._errors)

    def _add_stats(self, stats: MemberStats) -> None:
        stats.in_flight = self.machine.permits
        stats.errors = self._errors.read(last=self._stopping.is_set())


def share(in_flight: int, partition: int, partitions: int) -> int:
    """How many of all tasks in flight are one partition's."""
    each, rest = divmod(in_flight, partitions)
    return each + (partition < rest)


def poisonous(task: Task, deaths: int) -> End:
    """How a task ends that kills its process."""
    doing = f"with {task.next_role!r} next" if task.header.hop else "from its start"
    detail = f"its process died {deaths} times, {POISON_AFTER} of these with this task alone in it, {doing}"
    return End(FAILED, POISON, detail=detail)


def task_seed(seed: int, id: TaskId) -> int:
    """A task's own seed, below 2^31: the same for the same run seed and id, wherever it runs."""
    digest = hashlib.blake2b(f"{seed}/{id}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") & 0x7FFFFFFF
