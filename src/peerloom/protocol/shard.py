"""Commit each row of a shard exactly once.

A finished row is queued, committed with a group of others, and acknowledged to its feeder once the group is
durable. A duplicate of a queued row is dropped; a duplicate of a committed row is acknowledged again.
"""

from peerloom.idset import IdSet
from peerloom.protocol.messages import Ack, CommittedQuery, CommittedReply, Deliver, Delivered, Item
from peerloom.protocol.participant import Participant
from peerloom.task import TaskId


class ShardCommitter(Participant):
    """The protocol state of one sink.

    Args:
        name: the member's name.
        committed: the ids that earlier incarnations committed; updated in place.
    """

    def __init__(self, name: str, committed: IdSet) -> None:
        super().__init__(name)
        self.committed = committed
        self._queue: dict[TaskId, Item] = {}
        self._committing: dict[TaskId, Item] = {}
        self._to_ack: list[TaskId] = []

    def deliver(self, message: Deliver) -> Delivered:
        """Accept a batch of finished rows, or refuse it."""
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
        """Return the next group to commit; empty while a commit is under way or nothing is queued."""
        if self._committing:
            return []
        self._committing, self._queue = self._queue, {}
        return list(self._committing.values())

    def group_committed(self) -> None:
        """Mark the current group as durable."""
        for id in self._committing:
            self.committed.add(id)
            self._to_ack.append(id)
        self._committing = {}

    def acks(self) -> list[tuple[str, Ack]]:
        """Return the acknowledgements to send, by feeder. A census informs the successor of a lost feeder."""
        by_feeder: dict[str, list[TaskId]] = {}
        for id in self._to_ack:
            feeder = self.view.feeder(id)
            if feeder is not None:
                by_feeder.setdefault(feeder, []).append(id)
        self._to_ack = []
        return [(name, Ack(self.view.number, self.name, ids)) for name, ids in by_feeder.items()]

    @property
    def pending(self) -> int:
        """The number of rows that are not yet durable."""
        return len(self._queue) + len(self._committing)

    def query(self, message: CommittedQuery) -> CommittedReply | None:
        """Return which of the ids are committed or queued here, or None if the message is stale."""
        if message.view != self.view.number:
            return None
        pending = {**self._queue, **self._committing}
        # A fresh feeder needs all queued rows: the permits that listed them were lost with its predecessor.
        here = list(pending) if message.everything else [id for id in message.ids if id in pending]
        done = [id for id in message.ids if id in self.committed]
        past = self.committed.encode() if message.everything else b""
        return CommittedReply(self.view.number, self.name, done, here, past)
