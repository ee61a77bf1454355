"""Feeders in the world: over the rows, and what the journal knows of them."""

from functools import partial
from typing import TYPE_CHECKING

from chains import NOTHING, Known
from copies import fresh
from disk import BASE, Record
from leases import Held
from poison import POISONED
from processes import Process, pack
from reading import JournalScan

from peerloom.protocol.feeder import Feeder
from peerloom.protocol.leases.messages import Control
from peerloom.protocol.messages import Ack, DoneQuery, Drain, Item, Message, Passed, ViewCommit
from peerloom.protocol.view import TO_SINK, Member
from peerloom.task import Header, TaskId

if TYPE_CHECKING:
    from driver import Driver
    from world import World


class FeederProcess(Process):
    """A feeder over its partition of the rows; rows are fetched again, and the journal read, in any time."""

    def __init__(self, world: "World", member: Member) -> None:
        super().__init__(world, member)
        self._in_flight = world.scenario.in_flight
        self.core: Feeder = Feeder(member.name, self._in_flight, leases=bool(self.writer))
        self._rows = world.rows_of(member.index)
        self._position = 0
        self._fetching: set[TaskId] = set()
        self._memory: dict[TaskId, Known] | None = None if self.writer else {}
        self._remembering = False

    def hear(self, sender: "Process | Driver", message: Message) -> None:
        """Rows are safe, a census is over, somebody asks what is done, or the run is to end early."""
        core, world = self.core, self.world
        if type(message) is Ack:
            world.freed(self, core.ack(message))
        elif type(message) is Drain:
            core.drain(message)
        elif type(message) is Passed:
            core.passed(message)
        elif type(message) is DoneQuery:
            world.send(self, sender, core.done(message))
        elif type(message) is ViewCommit:
            if core.commit_view(message):
                world.freed(self, message.done)
                self.remember()
        else:
            super().hear(sender, message)

    def pass_on(self, control: Control) -> None:
        """The driver passes a message on to the services, unless it has given this feeder up."""
        if self.driver is self.world.driver and self.world.is_member(self):
            self.world.supplies.tell(control)

    def remember(self) -> None:
        """After the first census, before anything is admitted: what does the journal know?"""
        if self._memory is None and not self._remembering:
            self._remembering = True
            JournalScan(self, None, self.remembered)

    def remembered(self, known: dict[TaskId, Known]) -> None:
        """The journal has been read."""
        self._memory = known

    def fetched(self, ids: list[TaskId], known: dict[TaskId, Known]) -> None:
        """The rows of lost tasks have been read again, and what the journal knows of them."""
        self._fetching.difference_update(ids)
        for id in ids:
            self._admit(id, known.get(id, NOTHING), again=True)

    def act_on_state(self) -> None:
        """Admit what there is room for."""
        core, world = self.core, self.world
        lost = [id for id in core.lost() if id not in self._fetching]
        if lost:
            self._fetching.update(lost)
            self._fetch(lost)
        if core.room and self._memory is not None:
            self._admit_new(self._memory)
        if self._position == len(self._rows):
            core.source_ended()
        super().act_on_state()
        for control in core.controls():
            world.put(self, self.pass_on, control)
        isolate = core.isolate()
        if isolate is not None:
            self.tell(isolate)
        exhausted = core.exhausted()
        if exhausted is not None:
            self.tell(exhausted)

    def _fetch(self, lost: list[TaskId]) -> None:
        if self.writer:
            JournalScan(self, set(lost), partial(self.fetched, lost))
        else:
            for id in lost:
                self.world.put(self, partial(self.fetched, [id]), {})

    def _admit_new(self, memory: dict[TaskId, Known]) -> None:
        core, rows = self.core, self._rows
        while core.room and self._position < len(rows):
            id = rows[self._position]
            self._position += 1
            if not core.knows(id):
                self._admit(id, memory.pop(id, NOTHING))
                if core.permits > self._in_flight:
                    self.world.violated(f"{self.name} has {core.permits} tasks in flight")

    def _admit(self, id: TaskId, known: Known, *, again: bool = False) -> None:
        way, (turns, calls) = self.world.scenario.tasks[id], known
        self.world.recalled += len(turns) + len(calls)
        header = Header(id, self.core.attempt(), len(turns))
        if self.writer and (turns or calls):
            self.writer.add(Record(BASE, id, header.attempt, header.hop, turns=turns, calls=calls))
        self.world.admitted(self, id)
        target = way[len(turns)] if len(turns) < len(way) else TO_SINK
        if turns or calls or again:
            sets = self.world.ledger.held.get(turns[-1], Held()).held if turns else ()
            self.core.resumed(header, [held.name for held in sets if held is not None])
        if self.core.deaths(id, header.hop):
            self.world.poison.condemned(id)
            self.core.admit(Item(header, POISONED), TO_SINK)
        elif target is TO_SINK:
            self.core.admit(Item(header, pack(turns)), target)
        else:
            self.core.admit(fresh(header, turns, calls), target)
