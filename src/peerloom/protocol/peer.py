"""Track the tasks at a peer: arriving, with an agent, and on their way out.

Nothing is recorded here for recovery. A copy that a census discards may still be with an agent, whose
result is then ignored. A task that has ended may arrive to have its row rendered here; if the peer that
should render a row is lost, the holder of the task does it.

A quarantine peer (kind `alone`) works the same way, but receives only suspects, and tells the feeder which
of them have completed a turn.
"""

from enum import Enum

from peerloom.protocol.messages import Deliver, Delivered, Item, Passed, Report
from peerloom.protocol.participant import Participant
from peerloom.protocol.view import TO_SINK
from peerloom.task import Header, TaskId

_RENDERER = "<renderer>"


def to_renderer(name: str) -> str:
    """Return the target of a task that has ended and whose row the peer `name` renders."""
    return _RENDERER + name


class Move(Enum):
    """Where a task goes after an agent has acted on it."""

    HERE = "here"  # this peer hosts the next role
    AWAY = "away"  # pass it to `send`
    GONE = "gone"  # the copy is obsolete


class Peer(Participant):
    """The protocol state of one peer.

    Args:
        name: the member's name.
        alone: whether this is a quarantine peer.
        keep_to_end: whether suspects stay here until they end, instead of for one turn.
    """

    def __init__(self, name: str, *, alone: bool = False, keep_to_end: bool = False) -> None:
        super().__init__(name)
        self._alone = alone
        self._keep_to_end = keep_to_end
        self._passed: list[Header] = []
        self._acting: dict[TaskId, Header] = {}
        self._arrived: list[Item] = []
        self._reported: set[TaskId] = set()

    def deliver(self, message: Deliver) -> Delivered:
        """Accept a batch, or refuse it; accepted tasks are in `arrivals`."""
        refusal = self._refusal(message)
        if refusal is not None:
            return refusal
        for item in message.items:
            self._accept(item)
        return Delivered(self.view.number, message.seq, True)

    def arrivals(self) -> list[Item]:
        """Return the tasks that have arrived since the last call."""
        arrived, self._arrived = self._arrived, []
        return arrived

    def move(self, before: Header, after: Header, target: str) -> Move:
        """Record that an agent has turned the copy `before` into `after`, and return where it goes."""
        if self._acting.get(before.id) != before:
            return Move.GONE
        if self.stays(target):
            self._acting[before.id] = after
            return Move.HERE
        return Move.AWAY

    def stays(self, target: str) -> bool:
        """Return whether a task with this target continues at this peer."""
        # A kept suspect continues even during a census: it stays at this peer in any view.
        if self._keep_to_end:
            return target != TO_SINK
        return not self.held and self.name in self.view.hosts(target)

    def is_current(self, header: Header) -> bool:
        """Return whether a copy is current: not discarded by a census or superseded."""
        return self._acting.get(header.id) == header

    def send(self, before: Header, target: str, item: Item) -> None:
        """Queue a task for its target, if the copy `before` is current."""
        if self._acting.get(before.id) == before:
            del self._acting[before.id]
            self.outbox.put(target, item)
            if self._alone:
                self._passed.append(before)

    def passed(self) -> list[tuple[str, Passed]]:
        """Return the message that tells the feeder which suspects have left, if any have."""
        if self.held or not self._passed:
            return []
        headers, self._passed = self._passed, []
        feeder = self.view.feeder(headers[0].id)
        return [(feeder, Passed(self.view.number, self.name, headers))] if feeder else []

    @property
    def acting(self) -> int:
        """The number of tasks with the agents."""
        return len(self._acting)

    def _route(self, target: str, id: TaskId) -> str | None:
        if target.startswith(_RENDERER):
            renderer = target.removeprefix(_RENDERER)
            return renderer if renderer in self.view.names else self.name
        return super()._route(target, id)

    def _accept(self, item: Item) -> None:
        header = item.header
        id = header.id
        known = self._acting.get(id)
        if id in self._reported:
            # The sender's copy has won the census; the result, which discards ours, is still on its way.
            self._reported.discard(id)
            self.outbox.drop([id])
        elif known is not None and known.age >= header.age:
            return
        self._acting[id] = header
        self._arrived.append(item)

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
        self._arrived = [item for item in self._arrived if item.header.id not in lost]
