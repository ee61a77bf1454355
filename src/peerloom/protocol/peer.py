"""The peer: tasks arrive, agents act on them, they move on.

It knows which copies are with its agents and which are on their way out; nothing is recorded for
recovery. A copy that the census discards may still be with an agent: its result is then ignored. A task
that has ended may come here to be made a row; if whoever is to make that row is gone, its holder does.

A peer for suspects (kind `alone`) is the same, but nothing is routed to it, and it tells the feeder of
each task that has left it alive.
"""

from enum import Enum

from peerloom.protocol.messages import Copy, Deliver, Delivered, Passed, Prepare, Report
from peerloom.protocol.outbox import PLAIN, Packing
from peerloom.protocol.participant import Participant
from peerloom.protocol.view import TO_SINK, is_to_renderer
from peerloom.task import Header, TaskId


class Move(Enum):
    """What becomes of a task after an agent has acted on it."""

    HERE = "here"  # the next role is hosted by this peer: go on at once
    AWAY = "away"  # hand it to `send`
    GONE = "gone"  # another copy lives on; forget this one


class Peer(Participant):
    """State of one peer.

    Args:
        name: the member's name.
        alone: it is one for suspects.
        keep_to_end: it keep_to_end them to their end, not only for one turn.
        packing: how its tasks travel.
    """

    def __init__(
        self, name: str, *, alone: bool = False, keep_to_end: bool = False, packing: Packing = PLAIN
    ) -> None:
        super().__init__(name, packing)
        self._packing = packing
        self._alone = alone
        self._keep_to_end = keep_to_end
        self._passed: list[Header] = []
        self._acting: dict[TaskId, Header] = {}
        self._arrived: list[Copy] = []
        self._reported: set[TaskId] = set()

    def deliver(self, message: Deliver) -> Delivered:
        """Take a batch in, or refuse it; what was taken is in `arrivals`.

        What cannot be unpacked is left to the sender, who is told the same if the delivery comes again.
        """
        refusal = self._refusal(message)
        if refusal is not None:
            return refusal
        missing: list[int] = []
        for place, item in enumerate(message.items):
            copy = self._packing.unpack(message.sender, item)
            if copy is None:
                missing.append(place)
            else:
                self._accept(copy)
        if missing:
            self._missing[message.sender] = missing
        return Delivered(self.view.number, message.seq, True, missing)

    def prepare(self, message: Prepare) -> bool:
        """Adopt a newer view; nothing is known any more of who is not in it."""
        adopted = super().prepare(message)
        if adopted:
            self._packing.retain(self.view.names)
        return adopted

    def arrivals(self) -> list[Copy]:
        """Tasks for the agents of this peer that have come since the last call."""
        arrived, self._arrived = self._arrived, []
        return arrived

    def move(self, before: Header, after: Header, target: str) -> Move:
        """An agent has acted: `before` is the copy it was given, `after` the one it made."""
        if self._acting.get(before.id) != before:
            return Move.GONE
        if self.stays(target):
            self._acting[before.id] = after
            return Move.HERE
        return Move.AWAY

    def stays(self, target: str) -> bool:
        """Whether a task with this target goes on at this peer."""
        # What is kept goes on even in a census: whoever asks, this is where it is.
        if self._keep_to_end:
            return target != TO_SINK
        return not self.held and self.name in self.view.hosts(target)

    def is_current(self, header: Header) -> bool:
        """Whether this copy still counts; it does not once a census has discarded it."""
        return self._acting.get(header.id) == header

    def send(self, before: Header, target: str, copy: Copy) -> None:
        """Hand a task over to wherever its target is, if the copy that it was made of still counts."""
        if self._acting.get(before.id) == before:
            del self._acting[before.id]
            self.outbox.put(target, copy)
            if self._alone:
                self._passed.append(before)

    def passed(self) -> list[tuple[str, Passed]]:
        """What to tell the feeder now: its suspects that have left."""
        if self.held or not self._passed:
            return []
        headers, self._passed = self._passed, []
        feeder = self.view.feeder(headers[0].id)
        return [(feeder, Passed(self.view.number, self.name, headers))] if feeder else []

    @property
    def acting(self) -> int:
        """How many tasks are with the agents."""
        return len(self._acting)

    def _route(self, target: str, id: TaskId) -> str | None:
        return super()._route(target, id) or (self.name if is_to_renderer(target) else None)

    def _accept(self, copy: Copy) -> None:
        header = copy.header
        id = header.id
        known = self._acting.get(id)
        if id in self._reported:
            # The sender's copy won the census; ours is discarded as soon as we hear of it.
            self._reported.discard(id)
            self.outbox.drop([id])
        elif known is not None and known.age >= header.age:
            return
        self._acting[id] = header
        self._arrived.append(copy)

    def _make_report(self) -> Report:
        holding = [*self._acting.values(), *self.outbox.waiting()]
        self.outbox.confirm_taken(header.id for header in holding)
        report = super()._make_report()
        self._reported = {header.id for header in (*holding, *report.uncertain)}
        alone = list(self._acting.values()) if self._alone else []
        return Report(self.view.number, self.name, holding, report.uncertain, alone=alone)

    def _discard(self, ids: list[TaskId]) -> None:
        gone = [id for id in ids if id in self._reported]
        self._reported = set()
        super()._discard(gone)
        for id in gone:
            self._acting.pop(id, None)
        lost = set(gone)
        self._arrived = [copy for copy in self._arrived if copy.header.id not in lost]
