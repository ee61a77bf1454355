"""The run's own process, around the coordinator: starts members, ends them, hears of their death."""

from typing import TYPE_CHECKING, Any

from processes import DEAD, FROZEN, KINDS, RUNNING, Process

from peerloom.protocol.coordinator import Coordinator, Kill, Send, Spawn
from peerloom.protocol.messages import Drain
from peerloom.protocol.view import FEEDER, SINK, Member

if TYPE_CHECKING:
    from world import World


class Driver:
    """It never dies: without it there is no run. `losses` counts the members it gave up."""

    name = "driver"

    def __init__(self, world: "World") -> None:
        self.world = world
        self.state = RUNNING
        self.draining = False
        self.losses = 0
        scenario = world.scenario
        self.coordinator = Coordinator(
            scenario.members, scenario.partitions, scenario.shards, journal=scenario.remembers
        )
        self._doomed: set[str] = set()

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
            world.put_late(self, self.end, process)

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

    def wake(self, process: Process) -> None:
        """A stopped process goes on, with all that came meanwhile."""
        if process.state is FROZEN:
            process.state = RUNNING
            for owner, handler, argument in process.inbox:
                self.world.put(owner, handler, argument)
            process.inbox = []

    def end(self, process: Process) -> None:
        """A process that was to be killed is dead at last."""
        self.world.kill(process)

    def ask_census(self) -> None:
        """Somebody wants to know where everything is."""
        self.coordinator.census()
        self.after()

    def drain(self) -> None:
        """Admit nothing more."""
        self.draining = True
        for process in self.world.processes.values():
            if process.member.kind == FEEDER:
                self._drain(process)

    def after(self) -> None:
        """Do what the coordinator asks for."""
        world = self.world
        for effect in self.coordinator.effects():
            match effect:
                case Send(to, message):
                    world.send(self, world.processes[to], message)
                case Spawn(member):
                    world.put(self, self.start, member)
                    if world.scenario.hasty and world.random() < 0.3:
                        world.put(self, self.died, member.name)
                case Kill(name):
                    self.losses += 1
                    world.poison.lost(name)
                    self._kill(name)
        if self.coordinator.finished:
            world.check_finished()

    def _kill(self, name: str) -> None:
        process = self.world.processes.get(name)
        if process is None:
            self._doomed.add(name)
        elif process.state is not DEAD and self.world.random() < 0.5:
            self.world.kill(process)
        elif process.state is not DEAD:
            self.world.put_late(self, self.end, process)

    def _drain(self, process: Process) -> None:
        self.world.send(self, process, Drain())
