"""The shard: the rows of some ids, each committed once.

A finished task is queued, committed in a group, and acknowledged to its feeder only when the group is
safe on disk. What is already queued or committed is not taken twice; a second copy of a committed row
is answered with another acknowledgement.
"""

from peerloom.idset import IdSet
from peerloom.protocol.messages import Ack, CommittedQuery, CommittedReply, Deliver, Delivered, Item
from peerloom.protocol.participant import Participant
from peerloom.task import TaskId


class Shard(Participant):
    """State of one sink process.

    Args:
        name: the member's name.
        committed: what earlier incarnations committed; kept up to date here.
    """

    def __init__(self, name: str, committed: IdSet) -> None:
        super().__init__(name)
        self.committed = committed
        self._queue: dict[TaskId, Item] = {}
        self._committing: dict[TaskId, Item] = {}
        self._to_ack: list[TaskId] = []

    def deliver(self, message: Deliver) -> Delivered:
        """Take a batch of finished tasks in, or refuse it."""
        refusal = self._refusal(message)
        if refusal is not None:
            return refusal
        for item in message.items:
            id = item.header.id
            if id in self.committed:
                self._to_ack.append(id)
            elif id not in self._committing:
                self._queue.setdefault(id, item)
        return Delivered(self.view.number, message.seq, True)

    def group(self) -> list[Item]:
        """The next group to commit; empty while one is under way or nothing is queued."""
        if self._committing:
            return []
        self._committing, self._queue = self._queue, {}
        return list(self._committing.values())

    def group_committed(self) -> None:
        """The group is safe on disk."""
        for id in self._committing:
            self.committed.add(id)
            self._to_ack.append(id)
        self._committing = {}

    def acks(self) -> list[tuple[str, Ack]]:
        """Acknowledgements to send now, by feeder. For a feeder that is lost, the census has them."""
        by_feeder: dict[str, list[TaskId]] = {}
        for id in self._to_ack:
            feeder = self.view.feeder(id)
            if feeder is not None:
                by_feeder.setdefault(feeder, []).append(id)
        self._to_ack = []
        return [(name, Ack(self.view.number, self.name, ids)) for name, ids in by_feeder.items()]

    @property
    def pending(self) -> int:
        """Rows that are here and not yet safe."""
        return len(self._queue) + len(self._committing)

    def query(self, message: CommittedQuery) -> CommittedReply | None:
        """Which of the ids are here; None if the message is stale."""
        if message.view != self.view.number:
            return None
        pending = {**self._queue, **self._committing}
        # A fresh feeder must hear of rows that nobody could name; their permits went with its predecessor.
        here = list(pending) if message.everything else [id for id in message.ids if id in pending]
        done = [id for id in message.ids if id in self.committed]
        past = self.committed.encode() if message.everything else b""
        return CommittedReply(self.view.number, self.name, done, here, past)
