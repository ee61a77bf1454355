"""Queue outgoing tasks, with at most one delivery in flight to each destination.

Tasks that arrive meanwhile form the next batch, so batches grow with load, and a slow receiver costs its
sender one call. A batch that the receiver may or may not have accepted becomes uncertain: it is kept here,
and never sent again before a census has decided it.
"""

from collections import deque
from collections.abc import Callable, Iterable

from peerloom.protocol.messages import Deliver, Delivered, Item
from peerloom.protocol.view import View
from peerloom.task import Header, TaskId

Route = Callable[[str, TaskId], str | None]
Pending = tuple[str, Item]  # target (see `View.route`) and task

MAX_ITEMS = 2_000
MAX_BYTES = 4 << 20


class Outbox:
    """The outgoing tasks of one member.

    Args:
        sender: the member's name.
        route: returns the destination for a target and id in the present view, or None.
    """

    def __init__(self, sender: str, route: Route) -> None:
        self._sender = sender
        self._route = route
        self._seq = 0
        self._queues: dict[str, deque[Pending]] = {}
        self._idle: dict[str, None] = {}  # destinations with a queue and no delivery in flight
        self._in_flight: dict[str, tuple[int, list[Pending]]] = {}  # sequence number and batch
        self._uncertain: dict[TaskId, Pending] = {}
        self._unroutable: list[Pending] = []  # their target has no member at present

    def put(self, target: str, item: Item) -> None:
        """Queue a task for a target."""
        destination = self._route(target, item.header.id)
        if destination is None:
            self._unroutable.append((target, item))
            return
        queue = self._queues.get(destination)
        if queue is None:
            queue = self._queues[destination] = deque()
        queue.append((target, item))
        if destination not in self._in_flight:
            self._idle[destination] = None

    def next_deliveries(self, view: int) -> list[tuple[str, Deliver]]:
        """Return the deliveries to send now, by destination, and mark them as in flight."""
        out: list[tuple[str, Deliver]] = []
        for destination in self._idle:
            batch = self._batch(destination)
            if batch:
                self._seq += 1
                self._in_flight[destination] = (self._seq, batch)
                items = [item for _, item in batch]
                out.append((destination, Deliver(view, self._sender, self._seq, items)))
        self._idle.clear()
        return out

    def answered(self, destination: str, answer: Delivered) -> None:
        """Handle an answer; one to any other delivery than that in flight is ignored."""
        batch = self._finish(destination, answer.seq)
        if not answer.accepted:
            self._requeue(destination, batch)

    def failed(self, destination: str, seq: int) -> bool:
        """Mark a delivery without an answer as uncertain. Return False if it was answered already."""
        batch = self._finish(destination, seq)
        for pending in batch:
            header = pending[1].header
            held = self._uncertain.get(header.id)
            if held is None or held[1].header.age < header.age:  # the task may have been here twice
                self._uncertain[header.id] = pending
        if batch:
            self._idle.pop(destination, None)
        return bool(batch)

    def mark_lost(self, view: View) -> None:
        """Make deliveries to members outside `view` uncertain, and their queues unroutable."""
        for destination in [name for name in self._in_flight if name not in view.names]:
            self.failed(destination, self._in_flight[destination][0])
        for destination in [name for name in self._queues if name not in view.names]:
            self._unroutable += self._queues.pop(destination)
            self._idle.pop(destination, None)

    @property
    def busy(self) -> bool:
        """Whether a delivery is in flight."""
        return bool(self._in_flight)

    def waiting(self) -> list[Header]:
        """Return the headers of copies that are certainly here."""
        queued = (item.header for queue in self._queues.values() for _, item in queue)
        return [*queued, *(item.header for _, item in self._unroutable)]

    def uncertain(self) -> list[Header]:
        """Return the headers of copies that a lost receiver may have accepted."""
        return [item.header for _, item in self._uncertain.values()]

    def confirm_taken(self, ids: Iterable[TaskId]) -> None:
        """Drop uncertain copies of tasks that have come back, so the receiver had accepted them."""
        for id in ids:
            self._uncertain.pop(id, None)

    def drop(self, ids: Iterable[TaskId]) -> None:
        """Drop all copies of these tasks, which are obsolete."""
        gone = set(ids)
        if not gone:
            return
        for destination, queue in self._queues.items():
            self._queues[destination] = deque(p for p in queue if p[1].header.id not in gone)
        self._unroutable = [pending for pending in self._unroutable if pending[1].header.id not in gone]
        for id in gone:
            self._uncertain.pop(id, None)

    def reroute(self) -> None:
        """Queue all remaining copies again, by the routes of the present view; none is uncertain any more."""
        batch = [*self._uncertain.values(), *self._unroutable]
        for queue in self._queues.values():
            batch += queue
        self._uncertain.clear()
        self._unroutable = []
        self._queues.clear()
        self._idle.clear()
        for target, item in batch:
            self.put(target, item)

    def _finish(self, destination: str, seq: int) -> list[Pending]:
        in_flight = self._in_flight.get(destination)
        if in_flight is None or in_flight[0] != seq:
            return []
        del self._in_flight[destination]
        if self._queues.get(destination):
            self._idle[destination] = None
        return in_flight[1]

    def _requeue(self, destination: str, batch: list[Pending]) -> None:
        """Put a batch at the front of its queue."""
        if batch:
            self._queues[destination].extendleft(reversed(batch))
            self._idle[destination] = None

    def _batch(self, destination: str) -> list[Pending]:
        """Remove and return the next batch of a queue."""
        queue = self._queues[destination]
        batch: list[Pending] = []
        size = 0
        while queue and len(batch) < MAX_ITEMS and size < MAX_BYTES:
            pending = queue.popleft()
            batch.append(pending)
            size += pending[1].size
        return batch
