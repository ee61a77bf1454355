"""The members of the world: peers, sinks and feeders, around the core as the runtime drives it.

Each handles one event at a time; `after` then does what the state machine now asks for. The runtime
may do that late, and so do these, in some histories.
"""

from enum import Enum
from typing import TYPE_CHECKING, Any

import msgspec
from compaction import Compaction
from disk import Writer
from poison import POISONED
from scenario import DISK

from peerloom.protocol.messages import (
    CommittedQuery,
    Deliver,
    Delivered,
    DoneReply,
    Item,
    Message,
    Prepare,
    Suspect,
    ViewCommit,
)
from peerloom.protocol.shard import ShardCommitter
from peerloom.protocol.view import Member

if TYPE_CHECKING:
    from driver import Driver
    from world import Event, World


class State(Enum):
    """Of a process."""

    RUNNING = "running"
    FROZEN = "frozen"
    DEAD = "dead"


RUNNING, FROZEN, DEAD = State

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, ...]).decode


def pack(turns: tuple[int, ...]) -> bytes:
    """A row: the tokens of its turns."""
    return _encode(turns)


def unpack(payload: bytes) -> tuple[int, ...]:
    """The turns of a row."""
    return _decode(payload)


class Process:
    """One incarnation of one member, around its state machine."""

    core: Any

    def __init__(self, world: "World", member: Member) -> None:
        self.world = world
        self.member = member
        self.name = member.name
        self.state = RUNNING
        self.inbox: list[Event] = []
        self.driver = world.driver
        self.fenced = False  # given up, or left over by a session whose driver died
        self.writer = Writer(world, self) if world.scenario.journal else None
        self.compaction = Compaction(self, self.writer) if self.writer else None
        self._lazy = world.scenario.lazy
        self._flush_due = False

    def up(self, _: None) -> None:
        """It has started."""
        if self.driver.state is RUNNING:
            self.driver.joined(self)

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
        elif kind is Prepare:
            self.core.prepare(message)
        else:
            self.hear(sender, message)

    def take(self, message: Deliver) -> Delivered:
        """Take a batch in."""
        return self.core.deliver(message)

    def hear(self, sender: "Process | Driver", message: Message) -> None:
        """A message that is not for every kind of member."""
        if type(message) is ViewCommit:
            self.core.commit_view(message)
        elif type(message) is DoneReply and self.compaction:
            self.compaction.answered(sender.name, message)

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
        self.world.send(self, self.driver, message)

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

    def write_journal(self) -> bool:
        """Write down what was done. False if there is no room: then nothing may leave."""
        if self.writer is None:
            return True
        written = self.writer.write()
        if written:
            self.world.ledger.passed(self)
        return written

    def act_on_state(self) -> None:
        """Report and send what can be sent."""
        core, world = self.core, self.world
        written = self.write_journal()
        report = core.report()
        if report is not None:
            self.tell(report)
        if not written:
            return
        for destination, deliver in core.outgoing():
            world.send(self, world.processes[destination], deliver)


class SinkProcess(Process):
    """A sink; a group becomes durable in one or two pieces, and is acknowledged some time after."""

    def __init__(self, world: "World", member: Member) -> None:
        super().__init__(world, member)
        self.core: ShardCommitter = ShardCommitter(member.name, world.take_shard(member))

    def take(self, message: Deliver) -> Delivered:
        """Take finished tasks in."""
        for header, payload in message.items:
            if payload == POISONED:
                continue
            turns = unpack(payload)
            if not header.hop == len(turns) == len(self.world.scenario.tasks[header.id]):
                self.world.violated(f"{self.name} got {header}, which is not finished")
            self.world.ledger.check_task(self.name, header.id, turns, ())
        # To a delivery that was overtaken by a later one it says yes, but does not take it.
        overtaken = message.seq <= self.core._last_seq.get(message.sender, 0)
        answer = self.core.deliver(message)
        if answer.accepted and not overtaken:
            for header, _ in message.items:
                self.world.advanced(answer.view, header.id, header.hop)
        return answer

    def hear(self, sender: "Process | Driver", message: Message) -> None:
        """Answer a query."""
        if type(message) is CommittedQuery:
            have = self.core.query(message)
            if have is not None:
                self.tell(have)
        else:
            super().hear(sender, message)

    def write(self, group: list[Item]) -> None:
        """Append, fsync, index entry, fsync: now these rows will be there after any death."""
        if self.world.disk.full:
            self.world.put_late(self, self.write, group)
            return
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
