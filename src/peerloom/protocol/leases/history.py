"""Keep the messages of feeders for processes that start later, which must fence the same copies of tasks."""

from collections.abc import Iterable

from peerloom.idset import IdSet
from peerloom.protocol.leases.messages import (
    Control,
    TaskResumed,
    TasksEnded,
    TasksEndedBefore,
    TasksInFlight,
)
from peerloom.task import TaskId


class ControlHistory:
    """The messages of feeders about leases in one session, without those that others have made obsolete."""

    def __init__(self) -> None:
        self._ended = IdSet()
        self._censuses: dict[int, TasksInFlight] = {}
        self._resumed: dict[TaskId, int] = {}

    def add(self, messages: Iterable[Control]) -> None:
        """Add messages in any order."""
        for message in messages:
            match message:
                case TasksEnded():
                    self._ended.update(message.ids)
                    for id in message.ids:
                        self._resumed.pop(id, None)
                case TaskResumed():
                    if message.id not in self._ended:
                        self._resumed[message.id] = max(message.attempt, self._resumed.get(message.id, 0))
                case TasksInFlight():
                    earlier = self._censuses.get(message.partition)
                    if earlier is None or earlier.view < message.view:
                        self._censuses[message.partition] = message
                case TasksEndedBefore():
                    self._ended.merge_encoded(message.ids)

    def messages(self) -> list[Control]:
        """Return the messages for a process that has just started."""
        resumed = (TaskResumed(id, attempt, []) for id, attempt in self._resumed.items())
        return [TasksEndedBefore(self._ended.encode()), *self._censuses.values(), *resumed]
