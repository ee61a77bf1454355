"""Who kills its process: counts of deaths, and suspects taken through their next turn alone.

When a peer dies nobody alive knows which task did it, so every task that was lost with it counts it. One
that has counted two without having gained a turn between is a suspect. Suspects go to a process of their
own, at first one at a time; each that gets through its turn leaves, is innocent again, and makes room for
one more: so a crowd that bad luck has brought together is soon through. When the process dies with several
aboard, these are the accused: they go first, one at a time, until each is through or known to be poison,
and only then the others. What has been the only one aboard at two deaths is poison.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from peerloom.protocol.messages import Item
from peerloom.task import Header, TaskId

POISON = "poison"
"""The reason of the row of a task that kills its process."""

SUSPECT_AFTER = 2
POISON_AFTER = 2


@dataclass(slots=True)
class _Deaths:
    """Of its process, since a task last gained a turn: in company, and alone. `hop` is how far it was."""

    company: int = 0
    alone: int = 0
    hop: int = -1


class Quarantine:
    """The suspects of one feeder."""

    def __init__(self) -> None:
        self._deaths: dict[TaskId, _Deaths] = {}
        self._waiting: OrderedDict[TaskId, Item] = OrderedDict()
        self._running: dict[TaskId, int] = {}  # and the attempt of each
        self._limit = 1
        self._implicated: set[TaskId] = set()  # were aboard at a death

    @property
    def active(self) -> bool:
        """Whether there are suspects."""
        return bool(self._waiting or self._running)

    def waiting(self) -> list[Header]:
        """The suspects that have not been let in."""
        return [item.header for item in self._waiting.values()]

    def lost(self, ids: Iterable[TaskId], *, peer: bool, alone: bool) -> None:
        """These are lost. Since the last census an ordinary `peer` died, or the one for suspects."""
        only = len(self._running) == 1
        for id in ids:
            if self._running.pop(id, None) is None:
                if peer:
                    self._deaths.setdefault(id, _Deaths()).company += 1
            elif alone:
                self._limit = 1
                self._implicated.add(id)
                if only:
                    self._deaths.setdefault(id, _Deaths()).alone += 1

    def deaths(self, id: TaskId, hop: int) -> int:
        """How often its process has died, if the task is poison; 0 if not. `hop` is how far it has come."""
        deaths = self._deaths.get(id)
        if deaths is None:
            return 0
        if hop > deaths.hop:
            deaths.company, deaths.alone, deaths.hop = 1, 0, hop
            self._implicated.discard(id)
        return deaths.company + deaths.alone if deaths.alone >= POISON_AFTER else 0

    def suspects(self, id: TaskId) -> bool:
        """Whether a task is to run alone."""
        deaths = self._deaths.get(id)
        return deaths is not None and (deaths.company >= SUSPECT_AFTER or deaths.alone > 0)

    def add(self, item: Item) -> None:
        """Let a suspect wait for its turn."""
        id = item.header.id
        self._waiting[id] = item
        if id in self._implicated:
            self._waiting.move_to_end(id, last=False)

    def release(self) -> list[Item]:
        """The suspects that may go aboard now."""
        items: list[Item] = []
        while self._waiting and len(self._running) < (1 if self._implicated else self._limit):
            id, item = self._waiting.popitem(last=False)
            self._running[id] = item.header.attempt
            items.append(item)
        return items

    def passed(self, headers: Iterable[Header]) -> None:
        """These have left alive."""
        for header in headers:
            if self._running.get(header.id) == header.attempt:
                self._clear(header.id)

    def reconcile(self, *, here: Iterable[Header], there: Iterable[Header]) -> None:
        """After a census: who is not aboard, nor on the way from here, and is not lost, has left alive."""
        found = {header.id: header.attempt for header in there}
        if self._running:
            found |= {h.id: h.attempt for h in here if self._running.get(h.id) == h.attempt}
        for id in self._running.keys() - found.keys():
            self._clear(id)
        self._running = found

    def discard(self, ids: Iterable[TaskId]) -> None:
        """The copies that waited here are worth nothing any more."""
        for id in ids:
            self._waiting.pop(id, None)

    def forget(self, id: TaskId) -> None:
        """Its row is safe."""
        if not (self._deaths or self._running):
            return  # nearly always: no process has died
        self.discard([id])
        self._deaths.pop(id, None)
        self._running.pop(id, None)
        self._implicated.discard(id)

    def _clear(self, id: TaskId) -> None:
        del self._running[id]
        self._deaths.pop(id, None)
        self._implicated.discard(id)
        self._limit += 1
