"""The run's own process, around the coordinator: starts members, ends them, hears of their death."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from feeders import FeederProcess
from peers import PeerProcess
from processes import DEAD, FROZEN, RUNNING, Process, SinkProcess

from peerloom.protocol.coordinator import Coordinator, Effect, Kill, Send, Spawn
from peerloom.protocol.messages import Drain
from peerloom.protocol.view import ALONE, FEEDER, PEER, SINK, Member

if TYPE_CHECKING:
    from world import Event, World

KINDS: dict[str, Callable[["World", Member], Process]] = {
    PEER: PeerProcess,
    SINK: SinkProcess,
    FEEDER: FeederProcess,
    ALONE: PeerProcess,
}


class Driver:
    """The driver of one session of the run; `earlier` is the number of the last view before it."""

    name = "driver"

    def __init__(self, world: "World", earlier: int = 0) -> None:
        self.world = world
        self.state = RUNNING
        self.draining = False
        scenario = world.scenario
        self.coordinator = Coordinator(
            scenario.members,
            scenario.partitions,
            scenario.shards,
            journal=scenario.journal,
            last_view=earlier,
        )
        self._doomed: set[str] = set()
        self._view = earlier
        self.scarce = _to_spare(scenario.members) if scenario.scarce else None

    def begin(self) -> None:
        """Start the run."""
        self.coordinator.start()
        self.after()

    def receive(self, letter: tuple[Process, Any]) -> None:
        """A member says something; or perhaps not, if it is dead."""
        sender, message = letter
        if sender.state is not DEAD or self.world.random() < 0.5:
            self.coordinator.receive(message)

    def start(self, member: Member) -> None:
        """A process comes to be, perhaps even though it was given up before."""
        world = self.world
        doomed = member.name in self._doomed
        refused = member.kind == SINK and not world.may_take_shard(member)
        if refused or (doomed and world.random() < 0.5):
            world.put(self, self.died, member.name)
            return
        process = world.processes[member.name] = KINDS[member.kind](world, member)
        world.put(process, process.up, None)
        if doomed:
            world.put_late(world.nature, world.nature.end, process)

    def joined(self, process: Process) -> None:
        """A process is up."""
        self.coordinator.joined(process.name)
        if self.draining and process.member.kind == FEEDER:
            self._drain(process)
        self.after()

    def died(self, name: str) -> None:
        """A process is dead, or is thought to be."""
        self.coordinator.lost(name)

    def silent(self, process: Process) -> None:
        """A process has missed its heartbeats, if it is still stopped."""
        if process.state is FROZEN:
            self.coordinator.lost(process.name)

    def unheard(self, process: Process) -> None:
        """A process has missed its heartbeats, if the network is still cut."""
        if self.world.network.parts(self, process):
            self.coordinator.lost(process.name)

    def miss(self, event: "Event") -> None:
        """It is dead; what it had asked for may come to be all the same, and end soon."""
        _, handler, member = event
        if handler == self.start and self.world.random() < 0.3:
            self._doomed.add(member.name)
            self.start(member)

    def ask_census(self) -> None:
        """Somebody wants to know where everything is."""
        self.coordinator.census()
        self.after()

    def drain(self) -> None:
        """Admit nothing more."""
        self.draining = True
        for process in self.world.processes.values():
            if process.member.kind == FEEDER and process.driver is self:
                self._drain(process)

    def after(self) -> None:
        """Do what the coordinator asks for."""
        world = self.world
        while effects := self.coordinator.effects():  # no room for a member may lead to more
            for effect in effects:
                self._do(effect)
        if self._view != self.coordinator.view.number:
            self._view = self.coordinator.view.number
            world.views += 1
        if self.coordinator.finished:
            world.check_finished()

    def _do(self, effect: Effect) -> None:
        world = self.world
        match effect:
            case Send(to, message):
                world.send(self, world.processes[to], message)
            case Spawn(member) if self._lacks_room(member):
                self.coordinator.no_room(member.name)
            case Spawn(member):
                world.put(self, self.start, member)
                if world.scenario.hasty and world.random() < 0.3:
                    world.put(self, self.died, member.name)
            case Kill(name):
                world.losses += 1
                world.poison.lost(name)
                self._kill(name)

    def _lacks_room(self, member: Member) -> bool:
        """Whether there is no room for a member, and never will be: once, it may have been there."""
        return member.slot == self.scarce and (member.incarnation > 0 or self.world.random() < 0.5)

    def _kill(self, name: str) -> None:
        process = self.world.processes.get(name)
        if process is None:
            self._doomed.add(name)
            return
        process.fenced = True
        if self.world.network.parts(self, process) or self.world.random() < 0.5:
            self.world.put_late(self.world.nature, self.world.nature.end, process)
        else:
            self.world.kill(process)

    def _drain(self, process: Process) -> None:
        self.world.send(self, process, Drain())


def _to_spare(members: Sequence[Member]) -> tuple[str, int] | None:
    """The slot of a peer whose roles others play too, if there is one."""
    peers = [member for member in members if member.kind == PEER]
    for one in reversed(peers):
        if all(any(role in other.roles for other in peers if other is not one) for role in one.roles):
            return one.slot
    return None
