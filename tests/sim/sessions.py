"""The sessions of a run: its driver dies, or ends early, and another one goes on over what is on disk.

On disk are the rows, the journal, who has taken which shard, and the session's number. Views and
incarnations of a session begin beyond those of the one before, whose processes may live on for a while.
Peers, partitions and the number of tasks in flight may be others each time.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from driver import Driver
from processes import DEAD
from scenario import members

from peerloom.protocol.view import Member

if TYPE_CHECKING:
    from world import World

FIRST_VIEWS = 1_000
"""A session has fewer views, and incarnations of a member, than this."""


class Sessions:
    """Of one world. `number` is what state.json says."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.number = 0

    def begin(self) -> None:
        """Start the run, or start it again, unless that has happened."""
        world = self._world
        if self.number and world.driver.state is not DEAD:
            return
        if self.number:
            world.scenario = replace(
                world.scenario, **members(world.random, world.scenario.roles, world.scenario.shards)
            )
        self.number += 1
        earlier = self.earlier()
        slots = tuple(
            Member(m.kind, m.index, earlier + m.incarnation, m.roles) for m in world.scenario.members
        )
        world.scenario = replace(world.scenario, members=slots)
        world.driver = Driver(world, earlier)
        world.driver.begin()

    def earlier(self) -> int:
        """The number of the last view that there may have been."""
        return (self.number - 1) * FIRST_VIEWS

    def crash(self, survivors: float) -> None:
        """The driver dies, and its members with it but for some, which go on for a while."""
        world = self._world
        driver = world.driver
        if driver.state is DEAD:
            return
        driver.state = DEAD
        world.losses += 1
        for process in list(world.processes.values()):
            if process.driver is driver and process.state is not DEAD:
                process.fenced = True
                if world.random() < survivors:
                    world.put_late(world.nature, world.nature.end, process)
                else:
                    world.kill(process)
        world.supplies.end_session()
        again = world.put_late if world.random() < 0.3 else world.put
        again(world.nature, world.nature.resume, None)

    def lose_power(self) -> None:
        """All processes die, and what was not synced is lost."""
        world = self._world
        self.crash(0.0)
        for process in world.processes.values():
            world.kill(process)
        for record in world.disk.lose_power(world.random):
            world.ledger.lost(record)
