"""How a feeder reads the journal: segment after segment, while others write, rename and unlink them.

If one that was listed is no longer there, its records may be in one that was read before: so the whole is
read again. What is written meanwhile may be seen or not.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from chains import Known, recall
from disk import Record, Segment, SegmentName

from peerloom.task import TaskId

if TYPE_CHECKING:
    from processes import Process
    from world import World


class JournalScan:
    """One reading of the journal.

    Args:
        process: who reads.
        ids: the tasks in question; None for all.
        then: called with what is known of them.
    """

    def __init__(
        self, process: "Process", ids: set[TaskId] | None, then: Callable[[dict[TaskId, Known]], None]
    ) -> None:
        self._process = process
        self._world: World = process.world
        self._ids = ids
        self._then = then
        self._listed: list[tuple[SegmentName, Segment]] = []
        self._read: list[Record] = []
        self.begin()

    def begin(self) -> None:
        """List the segments."""
        self._listed = list(self._world.disk.segments.items())
        self._read = []
        self._world.put(self._process, self.step, None)

    def step(self, _: None) -> None:
        """Read some more of them."""
        world = self._world
        count = 1 + int(world.random() * len(self._listed))
        for name, segment in self._listed[:count]:
            if not self._take(name, segment):
                self.begin()
                return
        self._listed = self._listed[count:]
        if self._listed:
            world.put(self._process, self.step, None)
        else:
            self._then(recall(self._read, self._ids))

    def _take(self, name: SegmentName, segment: Segment) -> bool:
        """Read one segment; False if it is not there."""
        if not self._world.disk.is_there(segment, name):
            return False
        self._read += segment.records
        return True
