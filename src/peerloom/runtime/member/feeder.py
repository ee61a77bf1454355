"""Run a feeder, which admits the tasks of its partition as permits come free.

A malformed row never reaches an agent: it becomes a failed task with a permit like any other, and goes
straight to its sink. A task that starts again continues from its turns and calls in the journal. The feeder
scans the journal once, when it has learned which tasks are in flight, and again for lost tasks.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager

from peerloom.errors import RowError
from peerloom.idset import partition_of
from peerloom.protocol.feeder import Feeder
from peerloom.protocol.messages import Ack, DoneQuery, Drain, Item, Message, Pace, Passed
from peerloom.protocol.quarantine import POISON, POISON_AFTER
from peerloom.protocol.view import TO_SINK
from peerloom.runtime.member.admission import AdmissionQueue
from peerloom.runtime.member.events import LeaseControls, MemberStats
from peerloom.runtime.member.rows import finish
from peerloom.runtime.member.runtime import MemberRuntime
from peerloom.runtime.steps.error_counts import ErrorCounts
from peerloom.runtime.steps.executor import routed
from peerloom.sink.journal.index import JournalIndex, RecoveredTask
from peerloom.sink.layout import JOURNAL, POSITIONS
from peerloom.source.base import Source, SourceRow
from peerloom.task import FAILED, End, Header, Task, TaskId, encode, new_task

ROLE_REMOVED = "role_removed"
SOURCE_PAUSE = 0.1  # seconds until a source is asked again for rows that it does not have yet
CHUNK = 500  # the most tasks admitted before other messages are handled


@asynccontextmanager
async def open_feeder(member: MemberRuntime) -> "AsyncGenerator[FeederWork]":
    """Open the work of a feeder."""
    work = FeederWork(member)
    try:
        yield work
    finally:
        work.close()


class FeederWork:
    """Admits the tasks of one partition of the source."""

    def __init__(self, member: MemberRuntime) -> None:
        spec, settings = member.spec, member.spec.settings
        assert spec.source is not None
        self._member = member
        self._spec = spec
        in_flight = self._in_flight(settings.in_flight)
        leases = any(service.policy == "stateful" for service in spec.services.values())
        self.machine = Feeder(member.name, in_flight, leases=leases)
        self._source: Source = spec.source
        self._queue = AdmissionQueue(
            self._source, spec.member.index, settings, self.machine.past, spec.run_dir / POSITIONS
        )
        self._errors = ErrorCounts()
        self._refilling = False
        self._offsets: dict[TaskId, int] = {}  # of rows in flight, to read lost ones again
        self._fetching = False
        self._index: JournalIndex | None = None

    def close(self) -> None:
        """Close the index of the journal."""
        if self._index is not None:
            self._index.close()

    def on_message(self, message: Message) -> Message | None:
        """See `MemberWork`."""
        match message:
            case Ack():
                for id in self.machine.ack(message):
                    self._offsets.pop(id, None)
            case Drain():
                self.machine.drain(message)
            case DoneQuery():
                return self.machine.done(message)
            case Pace() if self.machine.pace(message):
                self.machine.in_flight = self._in_flight(message.in_flight)
            case Passed():
                self.machine.passed(message)
            case _:
                pass
        return None

    def process(self) -> None:
        """See `MemberWork`."""
        if not self._fetching and self.machine.lost():
            self._fetching = True
            self._member.spawn(self._readmit(self.machine.lost()))
        if self._journal_ready():
            self._admit_new()
        isolate = self.machine.isolate()
        if isolate is not None:
            self._member.emit(isolate)
        if controls := self.machine.controls():
            self._member.emit(LeaseControls(controls))
        exhausted = self.machine.exhausted()
        if exhausted is not None:
            self._member.emit(exhausted)

    def messages(self) -> tuple[()]:
        """See `MemberWork`."""
        return ()

    def stats(self) -> MemberStats:
        """See `MemberWork`."""
        return MemberStats(in_flight=self.machine.permits, errors=self._errors.read())

    def _in_flight(self, in_flight: int) -> int:
        """Return this partition's share of the tasks in flight, of which each must find its leases."""
        limits = [service.max_tasks for service in self._spec.services.values()]
        in_flight = min([in_flight, *(limit for limit in limits if limit is not None)])
        return split_in_flight(in_flight, self._spec.member.index, self._spec.settings.partitions)

    def _admit_new(self) -> None:
        if self.machine.room and self._queue.needs_refill and not self._refilling:
            self._refilling = True
            self._member.spawn(self._refill())
        room = self.machine.room
        for _ in range(CHUNK):
            if not room:
                return
            candidate = self._queue.pop()
            if candidate is None:
                if self._queue.exhausted:
                    self.machine.source_ended()
                return
            id, row = candidate
            if not self.machine.knows(id):
                self._offsets[id] = row.offset
                self._start(id, row, self._index)
                room -= 1
        self._member.schedule_flush()

    def _journal_ready(self) -> bool:
        """Return whether new tasks may be admitted: not before the journal was scanned."""
        if self._member.journal is None or self._index is not None:
            return True
        if self.machine.room and not self._fetching:
            self._fetching = True
            self._member.spawn(self._scan_journal())
        return False

    async def _scan_journal(self) -> None:
        knows, mine = self.machine.knows, self._spec.member.index
        partitions = self._spec.settings.partitions
        self._index = await self._scan(lambda id: partition_of(id, partitions) == mine and not knows(id))
        self._fetching = False
        self._member.schedule_flush()

    async def _refill(self) -> None:
        try:
            if not await self._queue.refill():
                await asyncio.sleep(SOURCE_PAUSE)
        finally:
            self._refilling = False
        self._member.schedule_flush()

    async def _readmit(self, ids: list[TaskId]) -> None:
        positions = [(id.file, id.row, self._offsets.get(id, self._queue.offset(id))) for id in ids]
        rows = await asyncio.to_thread(self._source.fetch, positions)
        index = await self._scan(set(ids).__contains__) if self._member.journal is not None else None
        self._fetching = False
        for id, row in zip(ids, rows, strict=True):
            self._start(id, row, index, again=True)
        if index is not None:
            index.close()
        self._member.schedule_flush()

    async def _scan(self, wants: Callable[[TaskId], bool]) -> JournalIndex:
        index = await asyncio.to_thread(JournalIndex.scan, self._spec.run_dir, wants)
        if index.damaged:
            self._member.notice(
                f"{index.damaged} damaged records in {self._spec.run_dir / JOURNAL}: "
                "the calls in them will be made, and paid, again"
            )
        return index

    def _start(self, id: TaskId, row: SourceRow, index: JournalIndex | None, *, again: bool = False) -> None:
        """Admit a task, perhaps again: send it to its next role, or to its sink if it has ended already."""
        recovered = index.pop(id) if index is not None and id in index else None
        task = self._new_task(id, row, recovered)
        if again or recovered is not None:
            held = task.last.leases if task.last is not None else ()
            self.machine.resumed(task.header, [leases.held.name for leases in held])
        deaths = self.machine.deaths(id, task.header.hop)
        if deaths:
            task = task.with_next(poison_end(task, deaths))
        if recovered is not None and self._member.journal is not None:
            self._member.journal.base(task.header, recovered.raw_turns, recovered.calls)
        if task.end is None:
            self.machine.admit(Item(task.header, encode(task)), task.next_role)
        else:
            self.machine.admit(Item(task.header, finish(task, self._spec)), TO_SINK)

    def _new_task(self, id: TaskId, row: SourceRow, recovered: RecoveredTask | None) -> Task:
        program = self._spec.program
        task = new_task(
            Header(id, self.machine.attempt(), recovered.hop if recovered else 0),
            row.data,
            seed=task_seed(self._spec.settings.seed, id),
            label=row.label,
            parent=row.parent,
            started=time.time(),
            raw_turns=recovered.raw_turns if recovered else (),
            calls=recovered.calls if recovered else (),
        )
        try:
            if row.error:
                raise RowError(row.error)
            if program.check_row is not None:
                program.check_row(row.data)
        except BaseException as error:
            return task.with_next(self._errors.classify(error, RowError.reason, task))
        if recovered is not None and len(self._spec.programs) > 1:
            end = removed_end(task, program.workflow.roles)
            if end is not None:
                return task.with_next(end)
        return routed(task, program.workflow, self._errors)


def split_in_flight(in_flight: int, partition: int, partitions: int) -> int:
    """Return one partition's share of the tasks in flight."""
    each, rest = divmod(in_flight, partitions)
    return each + (partition < rest)


def removed_end(task: Task, roles: Sequence[str]) -> End | None:
    """Return the end of a task with a turn of a role that only an earlier version of the program has."""
    removed = [turn.agent for turn in task.turns if turn.agent not in roles]
    if not removed:
        return None
    detail = (
        f"the task has a turn of role {removed[-1]!r}, which the program no longer has, so it has no place "
        "in the workflow; --retry-failed (retry_failed=True) starts it again from its input row"
    )
    return End(FAILED, ROLE_REMOVED, detail=detail)


def poison_end(task: Task, deaths: int) -> End:
    """Return the end of a poison task."""
    doing = f"with {task.next_role!r} next" if task.header.hop else "from its start"
    detail = f"its process died {deaths} times, {POISON_AFTER} of these with this task alone in it, {doing}"
    return End(FAILED, POISON, detail=detail)


def task_seed(seed: int, id: TaskId) -> int:
    """Derive the seed of a task, below 2^31, from the seed of the run and the id of the task."""
    digest = hashlib.blake2b(f"{seed}/{id}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") & 0x7FFFFFFF
