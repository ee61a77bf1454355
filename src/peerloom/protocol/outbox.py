"""Tasks on their way out: at most one delivery under way to each destination, the rest coalesce.

So batches grow with load by themselves, and a slow receiver costs its sender one call. A batch whose
receiver may or may not have taken it stays here, uncertain, until the census has judged it; it is
never sent again before that.

What waits here is whole. It is packed when it is sent, for the one destination that it is sent to: so it may
be without what that one has already. If it has not, it leaves that copy here, where it goes first, and whole.
"""

from collections import deque
from collections.abc import Callable, Iterable, Set
from typing import Protocol

from peerloom.protocol.messages import Copy, Deliver, Delivered, Item
from peerloom.protocol.view import View
from peerloom.task import Header, TaskId

Route = Callable[[str, TaskId], str | None]
Pending = tuple[str, Copy, bool]  # the target (see `View.route`), the task, and whether it must go whole

MAX_ITEMS = 2_000
MAX_BYTES = 4 << 20


class Packing(Protocol):
    """How a member's tasks become what travels, and what has come a task."""

    def pack(self, destination: str, copy: Copy, full: bool) -> Item:
        """A copy as it travels to a member; `whole` if that has said that it lacks what was left out."""
        ...

    def unpack(self, sender: str, item: Item) -> Copy | None:
        """What has come from a member; None if what was left out is not here."""
        ...

    def retain(self, members: Set[str]) -> None:
        """There are no other members any more."""
        ...


class Plain:
    """Everything travels as it is."""

    def pack(self, destination: str, copy: Copy, full: bool) -> Item:
        """The very item that was put in."""
        assert isinstance(copy, Item)
        return copy

    def unpack(self, sender: str, item: Item) -> Copy | None:
        """The very item."""
        return item

    def retain(self, members: Set[str]) -> None:
        """Nothing is known of anybody."""


PLAIN = Plain()


class Outbox:
    """The outgoing side of one member.

    Args:
        sender: the member's name.
        route: the destination for a target and id in the present view, or None if there is none.
        packing: makes of a copy what travels.
    """

    def __init__(self, sender: str, route: Route, packing: Packing = PLAIN) -> None:
        self._sender = sender
        self._route = route
        self._packing = packing
        self._seq = 0
        self._queues: dict[str, deque[Pending]] = {}
        self._idle: dict[str, None] = {}  # destinations with a queue and no delivery under way
        self._in_flight: dict[str, tuple[int, list[Pending]]] = {}  # the delivery's number, and what is in it
        self._uncertain: dict[TaskId, Pending] = {}
        self._unroutable: list[Pending] = []  # no member hosts their target at present

    def put(self, target: str, copy: Copy) -> None:
        """Queue one task for a target."""
        destination = self._route(target, copy.header.id)
        if destination is None:
            self._unroutable.append((target, copy, False))
            return
        queue = self._queues.get(destination)
        if queue is None:
            queue = self._queues[destination] = deque()
        queue.append((target, copy, False))
        if destination not in self._in_flight:
            self._idle[destination] = None

    def next_deliveries(self, view: int) -> list[tuple[str, Deliver]]:
        """The deliveries to send now, by destination; each awaits its answer."""
        out: list[tuple[str, Deliver]] = []
        for destination in self._idle:
            batch, items = self._batch(destination)
            if batch:
                self._seq += 1
                self._in_flight[destination] = (self._seq, batch)
                out.append((destination, Deliver(view, self._sender, self._seq, items)))
        self._idle.clear()
        return out

    def answered(self, destination: str, answer: Delivered) -> None:
        """The receiver has answered; an answer to anything but the delivery under way is ignored."""
        batch = self._finish(destination, answer.seq)
        if not answer.accepted:
            self._requeue(destination, batch)
        elif answer.missing and batch:
            missing = [batch[place] for place in answer.missing]
            self._requeue(destination, [(target, copy, True) for target, copy, _ in missing])

    def failed(self, destination: str, seq: int) -> bool:
        """No answer came, or an error: whether the batch was taken is unknown. False if it is settled."""
        batch = self._finish(destination, seq)
        for pending in batch:
            header = pending[1].header
            held = self._uncertain.get(header.id)
            if held is None or held[1].header.age < header.age:  # it may have come and gone twice
                self._uncertain[header.id] = pending
        if batch:
            self._idle.pop(destination, None)
        return bool(batch)

    def mark_lost(self, view: View) -> None:
        """Deliveries to whoever is not in `view` become uncertain, and queues for them homeless."""
        for destination in [name for name in self._in_flight if name not in view.names]:
            self.failed(destination, self._in_flight[destination][0])
        for destination in [name for name in self._queues if name not in view.names]:
            self._unroutable += self._queues.pop(destination)
            self._idle.pop(destination, None)

    @property
    def busy(self) -> bool:
        """Whether a delivery still awaits its answer."""
        return bool(self._in_flight)

    def waiting(self) -> list[Header]:
        """The copies that are certainly here."""
        queued = (copy.header for queue in self._queues.values() for _, copy, _ in queue)
        return [*queued, *(copy.header for _, copy, _ in self._unroutable)]

    def uncertain(self) -> list[Header]:
        """The copies that a lost receiver may have taken."""
        return [copy.header for _, copy, _ in self._uncertain.values()]

    def confirm_taken(self, ids: Iterable[TaskId]) -> None:
        """These tasks have come back to this member: whatever was uncertain about them was taken."""
        for id in ids:
            self._uncertain.pop(id, None)

    def drop(self, ids: Iterable[TaskId]) -> None:
        """Forget these tasks; another copy of them lives on."""
        gone = set(ids)
        if not gone:
            return
        for destination, queue in self._queues.items():
            self._queues[destination] = deque(p for p in queue if p[1].header.id not in gone)
        self._unroutable = [pending for pending in self._unroutable if pending[1].header.id not in gone]
        for id in gone:
            self._uncertain.pop(id, None)

    def reroute(self) -> None:
        """The census has judged: everything still here is certain, and finds its way anew."""
        batch = [*self._uncertain.values(), *self._unroutable]
        for queue in self._queues.values():
            batch += queue
        self._uncertain.clear()
        self._unroutable = []
        self._queues.clear()
        self._idle.clear()
        for target, copy, _ in batch:
            self.put(target, copy)

    def _finish(self, destination: str, seq: int) -> list[Pending]:
        under_way = self._in_flight.get(destination)
        if under_way is None or under_way[0] != seq:
            return []
        del self._in_flight[destination]
        if self._queues.get(destination):
            self._idle[destination] = None
        return under_way[1]

    def _requeue(self, destination: str, batch: list[Pending]) -> None:
        """These go first next time."""
        if batch:
            self._queues[destination].extendleft(reversed(batch))
            self._idle[destination] = None

    def _batch(self, destination: str) -> tuple[list[Pending], list[Item]]:
        """What goes next to a destination, and as what."""
        queue, pack = self._queues[destination], self._packing.pack
        batch: list[Pending] = []
        items: list[Item] = []
        size = 0
        while queue and len(batch) < MAX_ITEMS and size < MAX_BYTES:
            pending = queue.popleft()
            item = pack(destination, pending[1], pending[2])
            batch.append(pending)
            items.append(item)
            size += len(item.payload)
        return batch, items
