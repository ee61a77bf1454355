"""Drives a feeder: takes rows from the source as permits come free, and starts their tasks.

A row that is malformed never reaches an agent: it becomes a failed task and goes straight to its sink,
under a permit like any other.
"""

import asyncio
import hashlib
import time
from collections.abc import Iterator

from peerloom.errors import RowError
from peerloom.protocol.feeder import Feeder
from peerloom.protocol.messages import Ack, Deliver, Delivered, Drain, Item, Message
from peerloom.protocol.view import TO_SINK
from peerloom.runtime.acting import classify
from peerloom.runtime.brief import Brief, MemberStats
from peerloom.runtime.host import Host
from peerloom.runtime.link import Link
from peerloom.runtime.rows import finish
from peerloom.source.base import Source, SourceRow
from peerloom.task import Header, Task, TaskId, encode, new_task

CHUNK = 500  # most rows taken from the source before other messages get their turn


class FeederHost(Host):
    """One feeder, for one partition of the source."""

    machine: Feeder

    def __init__(self, brief: Brief, link: Link) -> None:
        settings = brief.settings
        share, rest = divmod(settings.in_flight, settings.partitions)
        in_flight = share + (brief.member.index < rest)
        machine = Feeder(brief.member.name, in_flight, brief.program.workflow.roles[0])
        super().__init__(machine, link, settings.deliver_seconds)
        assert brief.source is not None
        self._brief = brief
        self._source: Source = brief.source
        self._offers = self._offered(brief.member.index)
        self._offsets: dict[TaskId, int] = {}  # of the rows in flight, to read them again
        self._fetching = False

    def _take_delivery(self, message: Deliver) -> Delivered:
        return Delivered(self.machine.view.number, message.seq, False)

    def _take_other(self, message: Message) -> None:
        match message:
            case Ack():
                for id in self.machine.ack(message):
                    self._offsets.pop(id, None)
            case Drain():
                self.machine.drain(message)
            case _:
                pass

    def _work(self) -> None:
        if not self._fetching and self.machine.lost():
            self._fetching = True
            self.spawn(self._admit_again(self.machine.lost()))
        self._admit_new()
        exhausted = self.machine.exhausted()
        if exhausted is not None:
            self.tell(exhausted)

    def _admit_new(self) -> None:
        for _ in range(CHUNK):
            if not self.machine.room:
                return
            offer = next(self._offers, None)
            if offer is None:
                self.machine.dry()
                return
            id, row = offer
            if not self.machine.knows(id):
                self._offsets[id] = row.offset
                self._start(id, row)
        self.poke()

    async def _admit_again(self, ids: list[TaskId]) -> None:
        positions = [(id.file, id.row, self._offsets.get(id, -1)) for id in ids]
        try:
            rows = await asyncio.to_thread(self._source.fetch, positions)
        finally:
            self._fetching = False
        for id, row in zip(ids, rows, strict=True):
            self._start(id, row)
        self.poke()

    def _start(self, id: TaskId, row: SourceRow) -> None:
        """Send a task on its way: to the first role, or straight to its sink if it cannot start."""
        task = self._new_task(id, row)
        if task.end is None:
            self.machine.admit([Item(task.header, encode(task))], task.next_role)
        else:
            self.machine.admit([Item(task.header, finish(task, self._brief))], TO_SINK)

    def _new_task(self, id: TaskId, row: SourceRow) -> Task:
        program = self._brief.program
        header = Header(id, self.machine.attempt())
        seed = task_seed(self._brief.settings.seed, id)
        task = new_task(header, row.data, seed=seed, label=row.label, started=time.time())
        try:
            if row.error:
                raise RowError(row.error)
            if program.check_row is not None:
                program.check_row(row.data)
        except Exception as error:
            return task.with_next(classify(error, RowError.reason))
        try:
            return task.with_next(program.workflow.next(task))
        except Exception as error:
            return task.with_next(classify(error, "workflow_error"))

    def _offered(self, partition: int) -> Iterator[tuple[TaskId, SourceRow]]:
        settings = self._brief.settings
        for row in self._source.rows(partition, settings.partitions):
            for trial in range(settings.trials):
                yield TaskId(row.file, row.row, trial), row

    def _add_stats(self, stats: MemberStats) -> None:
        stats.in_flight = self.machine.permits


def task_seed(seed: int, id: TaskId) -> int:
    """A task's own seed, below 2^31: the same for the same run seed and id, wherever it runs."""
    digest = hashlib.blake2b(f"{seed}/{id}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") & 0x7FFFFFFF
