"""Find the tasks that kill their process, by running suspects in a quarantine peer.

When a peer dies, any of the tasks lost with it may be the cause, so each of them counts the death. A task
that counts two deaths without completing a turn in between becomes a suspect. Suspects run in a quarantine
process, at first one at a time. A suspect that completes its turn is cleared, and the limit of suspects
running together rises by one, so a crowd of innocent suspects drains quickly. If the process dies, the
limit returns to one, and the suspects that were running are implicated: they run first, one at a time. A
task that was the only one running at two deaths is poison.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from peerloom.protocol.messages import Item
from peerloom.task import Header, TaskId

POISON = "poison"
"""The reason in the row of a task that kills its process."""

SUSPECT_AFTER = 2
POISON_AFTER = 2


@dataclass(slots=True)
class _Deaths:
    """The deaths of a task's process since the task last completed a turn, at `hop`."""

    company: int = 0
    alone: int = 0
    hop: int = -1


class Quarantine:
    """The suspects of one feeder, and the deaths each task has counted."""

    def __init__(self) -> None:
        self._deaths: dict[TaskId, _Deaths] = {}
        self._waiting: OrderedDict[TaskId, Item] = OrderedDict()
        self._running: dict[TaskId, int] = {}  # with the attempt of each
        self._limit = 1
        self._implicated: set[TaskId] = set()  # were running when the quarantine peer died

    @property
    def active(self) -> bool:
        """Whether there are suspects."""
        return bool(self._waiting or self._running)

    def waiting(self) -> list[Header]:
        """Return the headers of suspects that wait to run."""
        return [item.header for item in self._waiting.values()]

    def lost(self, ids: Iterable[TaskId], *, peer: bool, alone: bool) -> None:
        """Count a death for lost tasks, of an ordinary `peer`, or of the quarantine peer (`alone`)."""
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
        """Return the number of deaths a poison task has caused, or 0 if it is not poison.

        A task whose `hop` has grown has completed a turn, so its counts start over.
        """
        deaths = self._deaths.get(id)
        if deaths is None:
            return 0
        if hop > deaths.hop:
            deaths.company, deaths.alone, deaths.hop = 1, 0, hop
            self._implicated.discard(id)
        return deaths.company + deaths.alone if deaths.alone >= POISON_AFTER else 0

    def suspects(self, id: TaskId) -> bool:
        """Return whether a task must run in quarantine."""
        deaths = self._deaths.get(id)
        return deaths is not None and (deaths.company >= SUSPECT_AFTER or deaths.alone > 0)

    def add(self, item: Item) -> None:
        """Queue a suspect, implicated ones first."""
        id = item.header.id
        self._waiting[id] = item
        if id in self._implicated:
            self._waiting.move_to_end(id, last=False)

    def release(self) -> list[Item]:
        """Remove and return the suspects that may run now."""
        items: list[Item] = []
        while self._waiting and len(self._running) < (1 if self._implicated else self._limit):
            id, item = self._waiting.popitem(last=False)
            self._running[id] = item.header.attempt
            items.append(item)
        return items

    def passed(self, headers: Iterable[Header]) -> None:
        """Clear suspects that have completed a turn."""
        for header in headers:
            if self._running.get(header.id) == header.attempt:
                self._clear(header.id)

    def reconcile(self, *, waiting: Iterable[Header], running: Iterable[Header]) -> None:
        """Clear the suspects that a census neither finds in quarantine nor reports as lost.

        Args:
            waiting: the copies on their way out of this feeder.
            running: the suspects in the quarantine peer.
        """
        found = {header.id: header.attempt for header in running}
        if self._running:
            found |= {h.id: h.attempt for h in waiting if self._running.get(h.id) == h.attempt}
        for id in self._running.keys() - found.keys():
            self._clear(id)
        self._running = found

    def discard(self, ids: Iterable[TaskId]) -> None:
        """Drop waiting copies that are obsolete."""
        for id in ids:
            self._waiting.pop(id, None)

    def forget(self, id: TaskId) -> None:
        """Remove all state of a task whose row is durable."""
        if not (self._deaths or self._running):
            return  # the usual case: no process has died
        self.discard([id])
        self._deaths.pop(id, None)
        self._running.pop(id, None)
        self._implicated.discard(id)

    def _clear(self, id: TaskId) -> None:
        del self._running[id]
        self._deaths.pop(id, None)
        self._implicated.discard(id)
        self._limit += 1
