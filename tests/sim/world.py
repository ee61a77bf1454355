"""A world in virtual time around the protocol core: a bag of events, a network, disks, and faults.

Everything that can happen next lies in one bag, and each step draws one event from it at random: so
messages overtake each other and anything may take any time. Some events are put aside and come much
later. A dead process loses what is sent to it, and perhaps what it had sent; a stopped one finds it
when it wakes; one that is to be killed may live on for a while in its old view. Nothing else is ever
lost. The driver may die as well: then another session of the run begins. Faults come in the first part
of a history only, and a history ends when the bag is empty: then the run must be finished, every row be
there once, and no copy of a task be left anywhere.
"""

import random
from collections.abc import Callable
from typing import Any, NoReturn

from disk import Disk, SegmentName
from driver import Driver
from faults import strike
from leases import LeaseService, Supplies
from ledger import Ledger
from network import Nature, Network
from poison import Poison
from processes import DEAD, RUNNING, Process
from scenario import draw
from sessions import Sessions
from tracing import brief

from peerloom.idset import IdSet, partition_of
from peerloom.protocol.messages import Item, Message
from peerloom.protocol.view import ALONE, FEEDER, PEER, SINK, Member, hash_id
from peerloom.task import TaskId

Event = tuple[Process | Driver | Nature | LeaseService, Callable[[Any], None], Any]

MAX_STEPS = 20_000
MOST_SWEEPS = 30
LATE_SHARE = 0.03  # of the draws, from what was put aside


class Violation(Exception):
    """The protocol has broken one of its promises."""


class World:
    """One history.

    Args:
        seed: everything follows from it.
        trace: gets one line a step, if given.
    """

    def __init__(self, seed: int, trace: list[str] | None = None) -> None:
        self.random = random.Random(seed).random
        self.scenario = draw(self.random)
        self._slow, self._late_share = self.scenario.slow, self.scenario.late
        self.processes: dict[str, Process] = {}
        self.durable: dict[TaskId, str] = {}  # the rows on disk, and who wrote them
        self.shard_owner = [-1] * self.scenario.shards
        self.poison = Poison(self)
        self.acts = 0
        self.steps = 0
        self.losses = 0
        self.views = 0
        self.recalled = 0
        self.chained = 0
        self.finished = 0
        self.disk = Disk()
        self.ledger = Ledger(self)
        self.network = Network(self)
        self.nature = Nature(self)
        self.sessions = Sessions(self)
        self.supplies = Supplies(self)
        self.steps_executed = 0
        self._advanced: dict[tuple[int, TaskId], int] = {}
        self._admitted: dict[str, set[TaskId]] = {}
        self._bag: list[Event] = []
        self._late: list[Event] = []
        self._trace = trace
        self._faults = list(self.scenario.faults)
        self.driver: Driver

    @property
    def redone(self) -> int:
        """How many hops were done more than once."""
        wanted = sum(len(self.scenario.tasks[id]) for id in self.durable)
        return max(0, self.acts - wanted)

    def run(self) -> None:
        """Live through the history.

        Raises:
            Violation: if a promise was broken.
        """
        self.sessions.begin()
        self._live()
        while self.driver.draining and len(self.durable) < len(self.scenario.tasks):
            self.sessions.crash(0.0)
            self._live()
        if self.scenario.sweep:
            self._sweep()

    def _live(self) -> None:
        """Until nothing happens any more."""
        faults, trace = self._faults, self._trace
        next_fault = faults[-1][0] if faults else MAX_STEPS
        while event := self._draw():
            self.steps = step = self.steps + 1
            if trace is not None:
                what = getattr(event[1], "__name__", "fetched")
                trace.append(f"{step:4} {event[0].name}: {what} {brief(event[2])}")
            owner, handler, argument = event
            if owner.state is RUNNING:
                handler(argument)
                owner.after()
            else:
                owner.miss(event)
            while step >= next_fault:
                if not faults:
                    self.violated("no end is in sight")
                _, fault = faults.pop()
                next_fault = faults[-1][0] if faults else MAX_STEPS
                if trace is not None:
                    trace.append(f"{step:4} --- {fault}")
                strike(self, fault)
        self._check_end()

    def _sweep(self) -> None:
        """All is done: so in the end nothing is left of the journal."""
        for _ in range(MOST_SWEEPS):
            for process in self.living():
                if process.compaction is not None:
                    process.compaction.begin(everything=True)
                    process.after()
            self._live()
            if all(map(self._may_be_left, self.disk.segments)):
                return
        self.violated(f"the journal keeps {list(self.disk.segments)}, though all is done")

    def _may_be_left(self, name: SegmentName) -> bool:
        """Whether nobody may be there to look after a segment: a quarantine, or a place without room."""
        slot = name.kind, name.index % self.slots(name.kind)
        return name.kind == ALONE or slot == self.driver.scarce

    def _draw(self) -> Event | None:
        """Take any event, None if there is none; one that was put aside if there is no other, or rarely."""
        events, random = self._bag, self.random
        if self._late and (not events or random() < LATE_SHARE):
            events = self._late
        elif not events:
            return None
        index = int(random() * len(events))
        event = events[index]
        events[index] = events[-1]
        events.pop()
        return event

    def put(
        self,
        owner: Process | Driver | Nature | LeaseService,
        handler: Callable[[Any], None],
        argument: Any,
        kind: object = None,
    ) -> None:
        """Let something happen at any later time."""
        late = 0.5 if kind in self._slow else self._late_share
        bag = self._late if late and self.random() < late else self._bag
        bag.append((owner, handler, argument))

    def put_late(
        self, owner: Process | Driver | Nature | LeaseService, handler: Callable[[Any], None], argument: Any
    ) -> None:
        """Let something happen a good while later."""
        self._late.append((owner, handler, argument))

    def send(self, sender: Process | Driver, receiver: Process | Driver, message: Message) -> None:
        """Put a message on the network."""
        self.network.send(sender, receiver, message)

    def take_out(self, choose: Callable[[Event], bool]) -> list[Event]:
        """Take events out that were still to come."""
        taken = [event for event in (*self._bag, *self._late) if choose(event)]
        out = {id(event) for event in taken}
        self._bag = [event for event in self._bag if id(event) not in out]
        self._late = [event for event in self._late if id(event) not in out]
        return taken

    def living(self) -> list[Process]:
        """The processes that are not dead."""
        return [process for process in self.processes.values() if process.state is not DEAD]

    def kill(self, process: Process) -> None:
        """End a process; the driver hears of it some time."""
        if process.state is DEAD:
            return
        process.state = DEAD
        self.put(process.driver, process.driver.died, process.name)
        self._bag += process.inbox
        process.inbox = []

    def slots(self, kind: str) -> int:
        """How many members of a kind there are, or can be, in this session."""
        if kind == ALONE:
            return self.scenario.partitions
        return sum(member.kind == kind for member in self.scenario.members)

    def may_take_shard(self, member: Member) -> bool:
        """Whether no later incarnation of a starting sink has been here."""
        return self.shard_owner[member.index] < member.incarnation

    def take_shard(self, member: Member) -> IdSet:
        """A starting sink takes its shard over: what is on disk."""
        self.shard_owner[member.index] = member.incarnation
        shards = self.scenario.shards
        return IdSet(id for id in self.durable if hash_id(id) % shards == member.index)

    def rows_of(self, partition: int) -> list[TaskId]:
        """The ids a feeder finds in its part of the source of this session, in order."""
        partitions = self.scenario.partitions
        return [id for id in self.scenario.tasks if partition_of(id, partitions) == partition]

    def write_row(self, process: Process, item: Item) -> None:
        """A sink writes a row to its own part file, which another incarnation may have unlinked."""
        id = item.header.id
        if self.shard_owner[process.member.index] != process.member.incarnation:
            return
        if id in self.durable:
            self.violated(f"a second row for {id} by {process.name}, after {self.durable[id]}")
        self.durable[id] = process.name
        self.poison.written(item)

    def advanced(self, view: int, id: TaskId, hop: int) -> None:
        """In a view whose census is over a task has done a hop, or has come to its sink: it only advances."""
        before = self._advanced.get((view, id), -1)
        if hop <= before:
            self.violated(f"two live copies: {id} at hop {hop} after hop {before} in view {view}")
        self._advanced[view, id] = hop

    def admitted(self, process: Process, id: TaskId) -> None:
        """A feeder has admitted an id, anew or again."""
        self._admitted.setdefault(process.name, set()).add(id)
        if id in self.durable and self.is_member(process):
            self.violated(f"{process.name} admitted {id}, which is committed")

    def freed(self, process: Process, ids: list[TaskId]) -> None:
        """A feeder has been told that rows are safe."""
        for id in ids:
            if id not in self.durable and self.is_member(process):
                self.violated(f"{process.name} freed the permit of {id}, which is not on disk")

    def check_finished(self) -> None:
        """The coordinator says that all is done: then every row is on disk."""
        wanted = set(self.scenario.tasks)
        if self.driver.draining:
            # What a lost feeder had admitted need not be known to anybody after a drain.
            names = self.driver.coordinator.view.names
            wanted = set().union(*(ids for name, ids in self._admitted.items() if name in names))
        if not wanted <= self.durable.keys():
            self.violated(f"finished, but without {sorted(wanted - self.durable.keys())}")

    def is_member(self, process: Process) -> bool:
        """Whether it is in the newest view, and not fenced off."""
        return process.name in self.driver.coordinator.view.names

    def violated(self, what: str) -> NoReturn:
        """End the history: a promise was broken."""
        raise Violation(what)

    def letters(self, kind: type) -> list[tuple[Process, tuple[Process, Any]]]:
        """All messages of a kind that are under way: the receiver, and the sender with the message."""
        return [
            (owner, argument)
            for owner, handler, argument in (*self._bag, *self._late)
            if handler == owner.receive and type(argument[1]) is kind
        ]

    def _check_end(self) -> None:
        coordinator = self.driver.coordinator
        if not (coordinator.finished and coordinator.settled):
            self.violated("nothing can happen any more, and the run is not finished")
        for process in self.living():
            self._check_empty(process)
        self.supplies.check_empty()
        if self.redone and not self.losses:
            self.violated(f"{self.redone} hops redone, though no member was lost")

    def _check_empty(self, process: Process) -> None:
        core: Any = process.core
        left = [*core.outbox.waiting(), *core.outbox.uncertain()]
        count = {PEER: "acting", ALONE: "acting", SINK: "pending", FEEDER: "permits"}[process.member.kind]
        if left or core.outbox.busy or getattr(core, count):
            self.violated(f"{process.name} still has {getattr(core, count)} {count}, outgoing {left}")
