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

Choose = Callable[[str, TaskId], str | None]
Parcel = tuple[str, Copy, bool]  # the target (see `View.route`), the task, and whether it must go whole

MAX_ITEMS = 2_000
MAX_BYTES = 4 << 20


class Packing(Protocol):
    """How a member's tasks become what travels, and what has come a task."""

    def pack(self, destination: str, copy: Copy, whole: bool) -> Item:
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

    def pack(self, destination: str, copy: Copy, whole: bool) -> Item:
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
        choose: the destination for a target and id in the present view, or None if there is none.
        packing: makes of a copy what travels.
    """

    def __init__(self, sender: str, choose: Choose, packing: Packing = PLAIN) -> None:
        self._sender = sender
        self._choose = choose
        self._packing = packing
        self._seq = 0
        self._queues: dict[str, deque[Parcel]] = {}
        self._idle: dict[str, None] = {}  # destinations with a queue and no delivery under way
        self._under_way: dict[str, tuple[int, list[Parcel]]] = {}  # the delivery's number, and what is in it
        self._uncertain: dict[TaskId, Parcel] = {}
        self._homeless: list[Parcel] = []  # no member hosts their target at present

    def put(self, target: str, copy: Copy) -> None:
        """Queue one task for a target."""
        destination = self._choose(target, copy.header.id)
        if destination is None:
            self._homeless.append((target, copy, False))
            return
        queue = self._queues.get(destination)
        if queue is None:
            queue = self._queues[destination] = deque()
        queue.append((target, copy, False))
        if destination not in self._under_way:
            self._idle[destination] = None

    def take(self, view: int) -> list[tuple[str, Deliver]]:
        """The deliveries to send now, by destination; each awaits its answer."""
        out: list[tuple[str, Deliver]] = []
        for destination in self._idle:
            parcels, items = self._batch(destination)
            if parcels:
                self._seq += 1
                self._under_way[destination] = (self._seq, parcels)
                out.append((destination, Deliver(view, self._sender, self._seq, items)))
        self._idle.clear()
        return out

    def answered(self, destination: str, answer: Delivered) -> None:
        """The receiver has answered; an answer to anything but the delivery under way is ignored."""
        parcels = self._finish(destination, answer.seq)
        if not answer.accepted:
            self._put_back(destination, parcels)
        elif answer.missing and parcels:
            missing = [parcels[place] for place in answer.missing]
            self._put_back(destination, [(target, copy, True) for target, copy, _ in missing])

    def failed(self, destination: str, seq: int) -> bool:
        """No answer came, or an error: whether the batch was taken is unknown. False if it is settled."""
        parcels = self._finish(destination, seq)
        for parcel in parcels:
            header = parcel[1].header
            held = self._uncertain.get(header.id)
            if held is None or held[1].header.age < header.age:  # it may have come and gone twice
                self._uncertain[header.id] = parcel
        if parcels:
            self._idle.pop(destination, None)
        return bool(parcels)

    def lose(self, view: View) -> None:
        """Deliveries to whoever is not in `view` become uncertain, and queues for them homeless."""
        for destination in [name for name in self._under_way if name not in view.names]:
            self.failed(destination, self._under_way[destination][0])
        for destination in [name for name in self._queues if name not in view.names]:
            self._homeless += self._queues.pop(destination)
            self._idle.pop(destination, None)

    @property
    def busy(self) -> bool:
        """Whether a delivery still awaits its answer."""
        return bool(self._under_way)

    def waiting(self) -> list[Header]:
        """The copies that are certainly here."""
        queued = (copy.header for queue in self._queues.values() for _, copy, _ in queue)
        return [*queued, *(copy.header for _, copy, _ in self._homeless)]

    def uncertain(self) -> list[Header]:
        """The copies that a lost receiver may have taken."""
        return [copy.header for _, copy, _ in self._uncertain.values()]

    def taken(self, ids: Iterable[TaskId]) -> None:
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
        self._homeless = [parcel for parcel in self._homeless if parcel[1].header.id not in gone]
        for id in gone:
            self._uncertain.pop(id, None)

    def settle(self) -> None:
        """The census has judged: everything still here is certain, and finds its way anew."""
        parcels = [*self._uncertain.values(), *self._homeless]
        for queue in self._queues.values():
            parcels += queue
        self._uncertain.clear()
        self._homeless = []
        self._queues.clear()
        self._idle.clear()
        for target, copy, _ in parcels:
            self.put(target, copy)

    def _finish(self, destination: str, seq: int) -> list[Parcel]:
        under_way = self._under_way.get(destination)
        if under_way is None or under_way[0] != seq:
            return []
        del self._under_way[destination]
        if self._queues.get(destination):
            self._idle[destination] = None
        return under_way[1]

    def _put_back(self, destination: str, parcels: list[Parcel]) -> None:
        """These go first next time."""
        if parcels:
            self._queues[destination].extendleft(reversed(parcels))
            self._idle[destination] = None

    def _batch(self, destination: str) -> tuple[list[Parcel], list[Item]]:
        """What goes next to a destination, and as what."""
        queue, pack = self._queues[destination], self._packing.pack
        parcels: list[Parcel] = []
        items: list[Item] = []
        size = 0
        while queue and len(parcels) < MAX_ITEMS and size < MAX_BYTES:
            parcel = queue.popleft()
            item = pack(destination, parcel[1], parcel[2])
            parcels.append(parcel)
            items.append(item)
            size += len(item.payload)
        return parcels, items
