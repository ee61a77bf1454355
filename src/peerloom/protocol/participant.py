"""Implement the census for peers, feeders, and sinks.

In a census a member adopts the new view, stops sending, waits until its deliveries to living members are
answered, and reports. It refuses messages of other views, so a fenced process that resumes does no harm.
"""

from peerloom.protocol.messages import Deliver, Delivered, Pace, Prepare, Report, ViewCommit
from peerloom.protocol.outbox import Outbox
from peerloom.protocol.view import View
from peerloom.task import TaskId


class Participant:
    """The base class of the state machines of members.

    Args:
        name: the member's name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.view = View(0, ())
        self.outbox = Outbox(name, self._route)
        self.paused = False
        self._pace = 0
        self._census = True  # from a `Prepare` until its `ViewCommit`, and before the first one
        self._behind = False  # a member of a newer view refused a delivery; the `Prepare` is on its way
        self._report_due = False
        self._last_seq: dict[str, int] = {}

    @property
    def held(self) -> bool:
        """Whether sending is suspended."""
        return self._census or self._behind

    def prepare(self, message: Prepare) -> bool:
        """Adopt a newer view and stop sending. Return False if the message is stale."""
        if message.view.number <= self.view.number:
            return False
        self.view = message.view
        self._census, self._behind = True, False
        self._report_due = True
        self._last_seq = {k: seq for k, seq in self._last_seq.items() if k in self.view.names}
        self.outbox.mark_lost(self.view)
        return True

    def deliver(self, message: Deliver) -> Delivered:
        """Refuse a batch: not all kinds of members accept tasks."""
        return Delivered(self.view.number, message.seq, False)

    def report(self) -> Report | None:
        """Return the report for this view, once, when all deliveries to living members are answered."""
        if not self._report_due or self.outbox.busy:
            return None
        self._report_due = False
        return self._make_report()

    def commit_view(self, message: ViewCommit) -> bool:
        """End the census: drop obsolete copies and resume. Return False if the message is stale."""
        if message.view != self.view.number or not self._census or self._report_due:
            return False
        self._discard(message.discard)
        self._census = False
        self.outbox.reroute()
        return True

    def pace(self, message: Pace) -> bool:
        """Adopt a new pace. Return False if the message is outdated."""
        if message.number <= self._pace:
            return False
        self._pace = message.number
        self.paused = message.paused
        return True

    def outgoing(self) -> list[tuple[str, Deliver]]:
        """Return the deliveries to send now, by destination."""
        return [] if self.held else self.outbox.next_deliveries(self.view.number)

    def answered(self, destination: str, answer: Delivered) -> None:
        """Handle the answer to a delivery. After a refusal from a newer view, wait for its `Prepare`."""
        if not answer.accepted and answer.view > self.view.number:
            self._behind = True
        self.outbox.answered(destination, answer)

    def failed(self, destination: str, seq: int) -> bool:
        """Handle a delivery without an answer. Return True if the destination must be suspected."""
        return self.outbox.failed(destination, seq)

    def _refusal(self, message: Deliver) -> Delivered | None:
        """Return the answer to a repeated or refused batch, or None for a new batch of this view."""
        here = self.view.number
        if message.seq <= self._last_seq.get(message.sender, 0):
            return Delivered(here, message.seq, True)
        if message.view != here or message.sender not in self.view.names:
            return Delivered(here, message.seq, False)
        self._last_seq[message.sender] = message.seq
        return None

    def _route(self, target: str, id: TaskId) -> str | None:
        return self.view.route(target, id)

    def _make_report(self) -> Report:
        return Report(self.view.number, self.name, self.outbox.waiting(), self.outbox.uncertain())

    def _discard(self, ids: list[TaskId]) -> None:
        self.outbox.drop(ids)
