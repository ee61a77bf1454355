"""A service in the world whose resources tasks hold, around the lease table as its process drives it.

The state of a resource is the list of the steps executed on it, and the reply to a step is that list: so an
agent sees at once if a step was executed twice, or not at all, or if another one was before it.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from processes import DEAD, RUNNING
from scenario import ACQUIRE, RELEASE, SERVICES, Plan

from peerloom.protocol.leases.held import HeldLeases
from peerloom.protocol.leases.history import ControlHistory
from peerloom.protocol.leases.holder import Exchange, Message
from peerloom.protocol.leases.messages import Control, Reply, Request, Stamp, StepReply
from peerloom.protocol.leases.table import Close, Effect, Execute, Lease, LeaseTable, SendReply
from peerloom.task import Header, TaskId
from peerloom.turn import HeldSet, RecordedStep

if TYPE_CHECKING:
    from peers import Act, PeerProcess
    from world import Event, World

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[bytes]).decode


class Ticket(NamedTuple):
    """Who waits for an answer."""

    process: "PeerProcess"
    act: "Act"
    number: int

    @property
    def name(self) -> str:
        """For the trace."""
        return f"{self.process.name} for {self.act.name}"


class LeaseService:
    """One process of the service."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.state: Any = RUNNING
        self.table = LeaseTable(world.scenario.capacity)
        self.receive: Callable[[Any], None] | None = None
        self._open: set[Ticket] = set()
        self._holders: dict[TaskId, int] = {}  # the newest attempt that a step was executed for
        self._stamps: dict[TaskId, Stamp] = {}
        self._resources: set[int] = set()

    def request(self, letter: tuple[Ticket, Request]) -> None:
        """A request comes, perhaps not for the first time."""
        ticket, message = letter
        self._open.add(ticket)
        newest = self._stamps.get(message.id, message.stamp)
        self._stamps[message.id] = max(newest, message.stamp)
        self.table.handle(message, ticket)
        self._do(self.table.effects(), obsolete=message.stamp < newest)

    def control(self, message: Control) -> None:
        """A feeder says something."""
        self.table.control(message)

    def execute(self, lease: Lease) -> None:
        """A step is executed, unless it was cancelled; and if it was, perhaps."""
        step = lease.running
        if lease.is_closed or step is None:
            return
        newest = self._holders.get(step.id, 0)
        if step.stamp.attempt < newest:
            self.world.violated(f"{step.id}: a step of attempt {step.stamp.attempt} after one of {newest}")
        self._holders[step.id] = step.stamp.attempt
        self.world.steps_executed += 1
        self._resources.add(id(lease))
        if len(self._resources) > self.table.capacity:
            self.world.violated(f"{len(self._resources)} resources, of {self.table.capacity}")
        lease.resource = [*(lease.resource or []), step.digest]
        self.table.executed(lease, StepReply(_encode(lease.resource)))

    def close(self, lease: Lease) -> None:
        """A resource is gone."""
        self._resources.discard(id(lease))
        self.table.closed(lease)

    def after(self) -> None:
        """Do what the table asks for."""
        self._do(self.table.effects())

    def _do(self, effects: list[Effect], *, obsolete: bool = False) -> None:
        for effect in effects:
            match effect:
                case SendReply(tickets, reply):
                    for ticket in tickets:
                        self._open.discard(ticket)
                        self._answer(ticket, reply)
                case Execute(lease):
                    self.world.put(self, self.execute, lease)
                case Close(lease) if obsolete:
                    self.world.violated(f"an older copy of {lease.id} has closed a lease")
                case Close(lease):
                    self.world.put(self, self.close, lease)

    def miss(self, event: "Event") -> None:
        """It is dead: the connection is lost."""
        _, handler, argument = event
        if handler == self.request:
            self._answer(argument[0], None)

    def die(self) -> None:
        """The process ends, and another one is started in a while."""
        self.state = DEAD
        for ticket in self._open:
            self._answer(ticket, None)
        self._open.clear()

    def check_empty(self) -> None:
        """All tasks have ended: nobody holds a lease any more."""
        if self.table.used or self.table.waiting:
            self.world.violated(f"{self.name}: {self.table.used} leases held, {self.table.waiting} waiting")

    def _answer(self, ticket: Ticket, reply: Reply | None) -> None:
        process = ticket.process
        self.world.put(process, process.replied, (ticket, reply))


class Supply:
    """A service over time: one process after the other."""

    def __init__(self, world: "World", name: str) -> None:
        self.name = name
        self._world = world
        self._number = 0
        self.history = ControlHistory()
        self.service = LeaseService(world, f"{name}.0")

    def kill(self) -> None:
        """The process dies."""
        if self.service.state is not DEAD:
            self.service.die()
            self._world.put(self._world.nature, self.restart, None)

    def restart(self, _: None) -> None:
        """Another process is there."""
        if self.service.state is DEAD:
            self._number += 1
            self.service = LeaseService(self._world, f"{self.name}.{self._number}")
            for message in self.history.messages():
                self.service.control(message)

    def send(self, ticket: Ticket, message: Request) -> None:
        """A request is on its way, perhaps twice."""
        world, service = self._world, self.service
        world.put(service, service.request, (ticket, message))
        if world.scenario.twice and world.random() < world.scenario.twice:
            world.put(service, service.request, (ticket, message))

    def tell(self, message: Control) -> None:
        """A message of a feeder is on its way, perhaps twice."""
        world, service = self._world, self.service
        self.history.add([message])
        for _ in range(2 if world.random() < world.scenario.twice else 1):
            world.put(service, service.control, message)


class Supplies:
    """All services whose resources tasks hold."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.all = [Supply(world, name) for name in SERVICES]

    def kill(self) -> None:
        """A process of one of them dies."""
        self.all[int(self._world.random() * len(self.all))].kill()

    def end_session(self) -> None:
        """The processes of all die, and those of the next session know nothing of this one."""
        for supply in self.all:
            supply.kill()
            supply.history = ControlHistory()

    def send(self, ticket: Ticket, message: Message) -> None:
        """A request is on its way, unless it is of an earlier session, whose tokens are not accepted."""
        if ticket.process.driver is not self._world.driver:
            return
        self.all[SERVICES.index(message.service)].send(ticket, message.request)

    def tell(self, message: Control) -> None:
        """A message of a feeder is on its way to all."""
        for supply in self.all:
            supply.tell(message)

    def check_empty(self) -> None:
        """All tasks have ended: nobody holds a lease any more."""
        for supply in self.all:
            supply.service.check_empty()


class Held(NamedTuple):
    """What a turn has left with its task, by service."""

    held: tuple[HeldSet | None, ...] = (None,) * len(SERVICES)
    steps: tuple[RecordedStep, ...] = ()


def leases_of(header: Header, turns: Sequence[Held], calls: Sequence[RecordedStep]) -> HeldLeases:
    """The leases of a task, as its copy knows them."""
    leases = HeldLeases(header)
    for number, name in enumerate(SERVICES):
        held = turns[-1].held[number] if turns else None
        steps = [step for turn in turns for step in turn.steps if held is not None and step.name == held.name]
        own = [step for step in calls if step.request.startswith(name.encode())]
        leases.add(name, held, steps, own)
    return leases


def follow(plan: Plan, act: "Act", world: "World", record: Callable[[RecordedStep], None]) -> Exchange[None]:
    """Do with the services what a turn does, upon the answers it got."""
    leases, hop, seed = act.leases, act.before.hop, act.answers[-1] if act.answers else 0
    for number, (kind, arguments) in enumerate(plan):
        if kind == ACQUIRE:
            yield from leases.acquire(
                {
                    name: [b"%d" % slot for slot in range(count)]
                    for name, count in zip(SERVICES, arguments, strict=True)
                    if count
                }
            )
        elif kind == RELEASE:
            yield from leases.release()
        else:
            service, slot = arguments
            name = SERVICES[service]
            request = b"%s.%d.%d.%d" % (name.encode(), hop, seed, number)
            reply, step = yield from leases.holders[name].step(slot, request, request)
            if step is not None:
                record(step)
            expected = [step.digest for step in act.steps_of(service, slot)]
            if _decode(reply) != expected:
                world.violated(f"{act.name}: the state is {_decode(reply)}, not {expected}")
