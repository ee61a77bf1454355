"""How the journal's segments are let go, once their tasks are done.

A process asks the feeders which ids in its closed segments are done. A segment without live ids is
unlinked. One that is mostly garbage is copied, what is live of it, to the segment being written; when the
copies are synced, it is unlinked. Segments of earlier incarnations of its slot, and of slots that are no
more, are adopted, although their writer may not be dead yet and look after them as well.
"""

from typing import TYPE_CHECKING, Any

from disk import Record, Segment, Writer

from peerloom.protocol.messages import DoneQuery, DoneReply
from peerloom.protocol.view import PEER
from peerloom.task import TaskId

if TYPE_CHECKING:
    from processes import Process
    from world import World


EAGER = 0.4
"""How often a segment is copied though it is not worth it: more may go wrong then."""


class Compaction:
    """One process's part in it."""

    def __init__(self, process: "Process", writer: Writer) -> None:
        self._process = process
        self._world: World = process.world
        self._slots = process.world.slots(process.member.kind)
        self._writer = writer
        self._asked: list[Segment] = []
        self._awaited: set[str] = set()
        self._done: set[TaskId] = set()
        self._copied: list[Segment] = []
        self._unlinking = False

    def begin(self, everything: bool) -> None:
        """Look at what is closed; with `everything` also at what was being written."""
        if everything:
            self._writer.close_current()
        self._adopt()
        view = self._process.core.view
        self._asked = [segment for segment in self._writer.closed if not self._is_copied(segment)]
        ids: dict[str | None, set[TaskId]] = {}
        for segment in self._asked:
            for record in segment.records:
                ids.setdefault(view.feeder(record.id), set()).add(record.id)
        ids.pop(None, None)
        self._awaited, self._done = {name for name in ids if name}, set()
        for name, mine in ids.items():
            ask = DoneQuery(view.number, self._process.name, sorted(mine))
            self._world.send(self._process, self._world.processes[str(name)], ask)
        if not ids and self._asked:
            self._judge()

    def answered(self, feeder: str, answer: DoneReply) -> None:
        """A feeder has answered."""
        if feeder in self._awaited:
            self._awaited.discard(feeder)
            self._done.update(answer.ids)
            if not self._awaited:
                self._judge()

    def unlink_copied(self, _: Any) -> None:
        """What was copied may go, once the copies are safe."""
        self._unlinking = False
        writer = self._writer
        if writer.copies:  # no room yet
            self._unlink_later()
            return
        copied, self._copied = self._copied, []
        self._sync()
        for segment in copied:
            self._let_go(segment)

    def _judge(self) -> None:
        writer = self._writer
        for segment in self._asked:
            live = [record for record in segment.records if not self._is_done(record)]
            if not live:
                self._let_go(segment)
            elif 2 * len(live) <= len(segment.records) or self._world.random() < EAGER:
                writer.copies += live
                self._copied.append(segment)
        self._asked = []
        if self._copied:
            self._unlink_later()

    def _adopt(self) -> None:
        member, disk, writer = self._process.member, self._world.disk, self._writer
        for name, segment in list(disk.segments.items()):
            ours = name.kind == member.kind and name.index % self._slots == member.index
            earlier = ours and name.incarnation < member.incarnation
            if earlier and segment not in writer.closed and self._world.random() < 0.8:
                writer.closed.append(segment)

    def _let_go(self, segment: Segment) -> None:
        self._world.disk.unlink(segment)
        self._writer.closed.remove(segment)

    def _is_done(self, record: Record) -> bool:
        return record.id in self._done

    def _is_copied(self, segment: Segment) -> bool:
        return segment in self._copied

    def _sync(self) -> None:
        self._writer.sync()

    def _unlink_later(self) -> None:
        if not self._unlinking:
            self._unlinking = True
            self._world.put(self._process, self.unlink_copied, None)


def compact(world: "World") -> None:
    """Some processes begin a compaction; if peers are the target, some of these are suspected of death."""
    for process in world.living():
        if process.compaction is not None and process.state.value == "running" and world.random() < 0.7:
            process.compaction.begin(everything=world.random() < 0.6)
            process.after()
            if world.scenario.target == PEER and process.member.kind == PEER and world.random() < 0.3:
                world.put(process.driver, process.driver.died, process.name)
