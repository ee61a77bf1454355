"""Tasks that kill their process: they must end with a row that says so, and no other task may.

A task that is innocent can be condemned only if its process was lost twice, by chance, while it was the only
one aboard. So that is a violation in every history in which chance did not strike there as often.
"""

from typing import TYPE_CHECKING

from peerloom.protocol.messages import Item
from peerloom.protocol.quarantine import POISON_AFTER
from peerloom.protocol.view import ALONE
from peerloom.task import Header, TaskId

if TYPE_CHECKING:
    from peers import PeerProcess
    from world import World

POISONED = b"poison"


class Poison:
    """Of one history: who killed whom, and who was said to."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._killed: set[str] = set()
        self.by_chance = 0  # losses of processes for suspects that no suspect has killed
        self.deaths = 0

    def strikes(self, process: "PeerProcess", header: Header) -> bool:
        """Whether this task kills the process that acts on it."""
        if self._world.scenario.poison.get(header.id) != header.hop:
            return False
        self.deaths += 1
        self._killed.add(process.name)
        self._world.kill(process)
        return True

    def lost(self, name: str) -> None:
        """A member was given up."""
        if name.startswith(ALONE) and name not in self._killed:
            self.by_chance += 1

    def condemned(self, id: TaskId) -> None:
        """A feeder says that a task is poison."""
        if id not in self._world.scenario.poison and self.by_chance < POISON_AFTER:
            self._world.violated(f"{id} is innocent")

    def written(self, item: Item) -> None:
        """A row is durable."""
        if (item.payload != POISONED) and item.header.id in self._world.scenario.poison:
            self._world.violated(f"{item.header.id} is poison, and has passed")
