"""The members of the world: peers, sinks and feeders, around the core as the runtime drives it.

Each handles one event at a time; `after` then does what the state machine now asks for. The runtime
may do that late, and so do these, in some histories.
"""

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any

from poison import POISONED
from scenario import AGENT, DISK

from peerloom.protocol.feeder import Feeder
from peerloom.protocol.messages import (
    Ack,
    Deliver,
    Delivered,
    Drain,
    Hold,
    Item,
    Message,
    Passed,
    Query,
    Resolve,
    Suspect,
)
from peerloom.protocol.peer import Move, Peer
from peerloom.protocol.shard import Shard
from peerloom.protocol.view import ALONE, FEEDER, PEER, SINK, TO_SINK, Member
from peerloom.task import Header, TaskId

if TYPE_CHECKING:
    from driver import Driver
    from world import Event, World

PAYLOADS = tuple(b"after hop %d" % hop for hop in range(10))
FIRST_ROLE = "first"


class State(Enum):
    """Of a process."""

    RUNNING = "running"
    FROZEN = "frozen"
    DEAD = "dead"


RUNNING, FROZEN, DEAD = State


class Process:
    """One incarnation of one member, around its state machine."""

    core: Any

    def __init__(self, world: "World", member: Member) -> None:
        self.world = world
        self.member = member
        self.name = member.name
        self.state = RUNNING
        self.inbox: list[Event] = []
        self._lazy = world.scenario.lazy
        self._flush_due = False

    def up(self, _: None) -> None:
        """It has started."""
        self.world.driver.joined(self)

    def receive(self, letter: "tuple[Process | Driver, Message]") -> None:
        """A message comes; or perhaps not, if its sender is dead."""
        sender, message = letter
        kind = type(message)
        if sender.state is DEAD and self.world.random() < 0.5:
            if kind is Delivered:
                self.unanswered((sender.name, message.seq))
        elif kind is Deliver:
            self.world.send(self, sender, self.take(message))
        elif kind is Delivered:
            self.core.answered(sender.name, message)
            if self._lazy and self.world.random() < 0.2:
                self.unanswered((sender.name, message.seq))  # the deadline passes at this very moment
        elif kind is Hold:
            self.core.hold(message)
        else:
            self.hear(message)

    def take(self, message: Deliver) -> Delivered:
        """Take a batch in."""
        return self.core.deliver(message)

    def hear(self, message: Message) -> None:
        """A message that is not for every kind of member."""
        if type(message) is Resolve:
            self.core.resolve(message)

    def unanswered(self, delivery: tuple[str, int]) -> None:
        """A delivery got no answer."""
        destination, seq = delivery
        if self.core.failed(destination, seq):
            self.tell(Suspect(self.core.view.number, self.name, destination))

    def miss(self, event: "Event") -> None:
        """Something happens that this process cannot take part in."""
        _, handler, argument = event
        delivery = argument[1] if handler == self.receive and type(argument[1]) is Deliver else None
        if self.state is FROZEN:
            self.inbox.append(event)
        if delivery is not None and (self.state is DEAD or self.world.random() < 0.3):
            sender = argument[0]
            self.world.put(sender, sender.unanswered, (self.name, delivery.seq))

    def tell(self, message: Message) -> None:
        """Say something to the coordinator."""
        self.world.send(self, self.world.driver, message)

    def after(self) -> None:
        """After every event: do what the state machine asks for, or put that off for a while."""
        if self.state is DEAD:
            return
        if not self._lazy or self.world.random() < 0.6:
            self.act_on_state()
        elif not self._flush_due:
            self._flush_due = True
            self.world.put(self, self.flush, None)

    def flush(self, _: None) -> None:
        """What was put off is due."""
        self._flush_due = False

    def act_on_state(self) -> None:
        """Report and send what can be sent."""
        core, world = self.core, self.world
        report = core.report()
        if report is not None:
            self.tell(report)
        for destination, deliver in core.outgoing():
            world.send(self, world.processes[destination], deliver)


class PeerProcess(Process):
    """A peer; agents take any time for their act."""

    def __init__(self, world: "World", member: Member) -> None:
        super().__init__(world, member)
        alone = member.kind == ALONE
        keeps = alone and not world.scenario.remembers
        self.core: Peer = Peer(member.name, alone=alone, keeps=keeps)

    def agent_done(self, item: Item) -> None:
        """An agent has acted on a task: on it goes."""
        world, core = self.world, self.core
        before = item.header
        id, attempt, hop, _ = before
        way = world.scenario.tasks[id]
        if way[hop] not in self.member.roles or item.payload != PAYLOADS[hop]:
            world.violated(f"{self.name} got {item}, which is not for it")
        if world.poison.strikes(self, before):
            return
        world.acts += 1
        after = Item(Header(id, attempt, hop + 1), PAYLOADS[hop + 1])
        target = way[hop + 1] if hop + 1 < len(way) else TO_SINK
        move = core.move(before, after.header, target)
        if move is Move.GONE:
            return
        world.remember(after.header)
        if not core.held:
            world.advanced(core.view.number, id, hop)
        if move is Move.HERE:
            world.put(self, self.agent_done, after, AGENT)
        else:
            core.send(before, target, after)

    def act_on_state(self) -> None:
        """Hand what has arrived to the agents."""
        for item in self.core.arrivals():
            self.world.put(self, self.agent_done, item, AGENT)
        for feeder, passed in self.core.passed():
            self.world.send(self, self.world.processes[feeder], passed)
        super().act_on_state()


class SinkProcess(Process):
    """A sink; a group becomes durable in one or two pieces, and is acknowledged some time after."""

    def __init__(self, world: "World", member: Member) -> None:
        super().__init__(world, member)
        self.core: Shard = Shard(member.name, world.take_shard(member))

    def take(self, message: Deliver) -> Delivered:
        """Take finished tasks in."""
        for header, payload in message.items:
            hops = len(self.world.scenario.tasks[header.id])
            if payload != POISONED and (header.hop != hops or payload != PAYLOADS[hops]):
                self.world.violated(f"{self.name} got {header}, which is not finished")
        # To a delivery that was overtaken by a later one it says yes, but does not take it.
        overtaken = message.seq <= self.core._last_seq.get(message.sender, 0)
        answer = self.core.deliver(message)
        if answer.accepted and not overtaken:
            for header, _ in message.items:
                self.world.advanced(answer.view, header.id, header.hop)
        return answer

    def hear(self, message: Message) -> None:
        """Answer a query."""
        if type(message) is Query:
            have = self.core.query(message)
            if have is not None:
                self.tell(have)
        else:
            super().hear(message)

    def write(self, group: list[Item]) -> None:
        """Append, fsync, index entry, fsync: now these rows will be there after any death."""
        pieces = 1 + int(self.world.random() * len(group))
        for item in group[:pieces]:
            self.world.write_row(self, item)
        if group[pieces:]:
            self.world.put(self, self.write, group[pieces:], DISK)
        else:
            self.world.put(self, self.written, None, DISK)

    def written(self, _: None) -> None:
        """The last fsync has returned."""
        self.core.group_committed()

    def act_on_state(self) -> None:
        """Begin a group, send acknowledgements."""
        world = self.world
        group = self.core.group()
        if group:
            world.put(self, self.write, group, DISK)
        for feeder, ack in self.core.acks():
            world.send(self, world.processes[feeder], ack)
        super().act_on_state()


class FeederProcess(Process):
    """A feeder over its partition of the rows; a row is fetched again in any time."""

    def __init__(self, world: "World", member: Member) -> None:
        super().__init__(world, member)
        scenario = world.scenario
        self.core: Feeder = Feeder(member.name, scenario.in_flight, FIRST_ROLE)
        self._rows = world.rows_of(member.index)
        self._position = 0
        self._fetching: set[TaskId] = set()

    def hear(self, message: Message) -> None:
        """Rows are safe, a census is over, or the run is to end early."""
        core, world = self.core, self.world
        if type(message) is Ack:
            world.freed(self, core.ack(message))
        elif type(message) is Drain:
            core.drain(message)
        elif type(message) is Passed:
            core.passed(message)
        elif type(message) is Resolve and core.resolve(message):
            world.freed(self, message.done)

    def fetched(self, lost: tuple[TaskId, int]) -> None:
        """The row of a lost task has been read again."""
        id, attempt = lost
        self._fetching.discard(id)
        self._admit(id, attempt)

    def act_on_state(self) -> None:
        """Admit what there is room for."""
        core = self.core
        for id in core.lost():
            if id not in self._fetching:
                self._fetching.add(id)
                self.world.put(self, self.fetched, (id, core.attempt()))
        if core.room:
            self._admit_new()
        if self._position == len(self._rows):
            core.dry()
        super().act_on_state()
        isolate = core.isolate()
        if isolate is not None:
            self.tell(isolate)
        exhausted = core.exhausted()
        if exhausted is not None:
            self.tell(exhausted)

    def _admit_new(self) -> None:
        core, rows = self.core, self._rows
        while core.room and self._position < len(rows):
            id = rows[self._position]
            self._position += 1
            if not core.knows(id):
                self._admit(id, core.attempt())
                if core.permits > self.world.scenario.in_flight:
                    self.world.violated(f"{self.name} has {core.permits} tasks in flight")

    def _admit(self, id: TaskId, attempt: int) -> None:
        way = self.world.scenario.tasks[id]
        hop = self.world.recall(id)
        self.world.admitted(self, id)
        header, target = Header(id, attempt, hop), way[hop] if hop < len(way) else TO_SINK
        if self.core.deaths(id, hop):
            self.world.poison.condemned(id)
            self.core.admit([Item(header, POISONED)], TO_SINK)
        else:
            self.core.admit([Item(header, PAYLOADS[hop])], target)


KINDS: dict[str, Callable[["World", Member], Process]] = {
    PEER: PeerProcess,
    SINK: SinkProcess,
    FEEDER: FeederProcess,
    ALONE: PeerProcess,
}
