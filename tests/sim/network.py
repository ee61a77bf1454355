"""The network: messages take any time, may come twice, and stay where they are while it is cut in two.

While it is cut, deadlines pass and heartbeats are missed; when it heals, what was held back comes late.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from compaction import compact
from processes import DEAD, FROZEN, RUNNING, Process

from peerloom.protocol.messages import Deliver, Delivered, Message, decode, encode
from peerloom.protocol.view import PEER

if TYPE_CHECKING:
    from driver import Driver
    from world import Event, World


class Network:
    """The network of one world."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._far: frozenset[str] = frozenset()  # the side on which the driver is not
        self._held: list[Event] = []

    def send(self, sender: "Process | Driver", receiver: "Process | Driver", message: Message) -> None:
        """Put a message on the network, perhaps twice."""
        world = self._world
        scenario = world.scenario
        if scenario.wire:
            message = decode(encode(message))
        if self._far and self.parts(sender, receiver):
            self._held.append((receiver, receiver.receive, (sender, message)))
            return
        world.put(receiver, receiver.receive, (sender, message), type(message))
        if scenario.twice and world.random() < scenario.twice:
            world.put(receiver, receiver.receive, (sender, message), type(message))

    def parts(self, one: "Process | Driver", other: "Process | Driver") -> bool:
        """Whether the network is cut between these two."""
        return (one.name in self._far) != (other.name in self._far)

    def cut(self) -> None:
        """Cut it, somewhere."""
        world = self._world
        living = [process for process in world.processes.values() if process.state is not DEAD]
        if self._far or not living:
            return
        share = 0.2 + 0.6 * world.random()
        self._far = frozenset(process.name for process in living if world.random() < share)
        self._held = world.take_out(self._is_cut_off)
        for receiver, _, (sender, message) in self._held:
            if type(message) is Deliver and world.random() < 0.7:
                world.put(sender, sender.unanswered, (receiver.name, message.seq))
            elif type(message) is Delivered and world.random() < 0.7:
                world.put(receiver, receiver.unanswered, (sender.name, message.seq))
        for process in living:
            if process.name in self._far and world.random() < 0.6:
                world.put(process.driver, process.driver.unheard, process)
        world.put_late(world.nature, world.nature.heal, None)

    def heal(self) -> None:
        """Put it together again."""
        held, self._held, self._far = self._held, [], frozenset()
        for owner, handler, argument in held:
            self._world.put(owner, handler, argument)

    def _is_cut_off(self, event: "Event") -> bool:
        owner, handler, argument = event
        return handler == owner.receive and self.parts(argument[0], owner) and self._world.random() < 0.7


class Nature:
    """What happens by itself, whoever is dead."""

    name = "nature"
    state = RUNNING

    def __init__(self, world: "World") -> None:
        self._world = world
        self.receive: Callable[[Any], None] | None = None

    def end(self, process: Process) -> None:
        """A process that was to be killed is dead at last."""
        self._world.kill(process)

    def wake(self, process: Process) -> None:
        """A stopped process goes on, with all that came meanwhile."""
        if process.state is FROZEN:
            process.state = RUNNING
            for owner, handler, argument in process.inbox:
                self._world.put(owner, handler, argument)
            process.inbox = []

    def heal(self, _: None) -> None:
        """The network is whole again."""
        self._world.network.heal()

    def room(self, _: None) -> None:
        """There is room on the disk again; everybody tries again in a while."""
        world = self._world
        world.disk.full = False
        for process in world.processes.values():
            world.put(process, process.flush, None)

    def blackout(self, _: None) -> None:
        """The power fails."""
        self._world.sessions.lose_power()

    def inherit(self, _: None) -> None:
        """A while after a feeder's death: whoever likes compacts, then a peer dies."""
        world = self._world
        if world.scenario.journal and world.random() < 0.6:
            compact(world)
        peers = [process for process in world.living() if process.member.kind == PEER]
        if peers:
            world.put_late(self, self.end, peers[int(world.random() * len(peers))])

    def resume(self, _: None) -> None:
        """Somebody starts the run again."""
        self._world.sessions.begin()

    def miss(self, event: "Event") -> None:
        """It never does."""

    def after(self) -> None:
        """Nothing more."""
