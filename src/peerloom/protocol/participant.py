"""What peers, feeders and sinks have in common: a view, a name, and part in the census.

In a census a member adopts the new view, keeps what it would send, waits until its deliveries to the
living are answered, and reports. What arrives in another view than its own is refused, so a process
that was fenced off can do no harm when it wakes.
"""

from peerloom.protocol.messages import Deliver, Delivered, Pace, Prepare, Report, ViewCommit
from peerloom.protocol.outbox import PLAIN, Outbox, Packing
from peerloom.protocol.view import View
from peerloom.task import TaskId


class Participant:
    """Base of the member state machines.

    Args:
        name: the member's name.
        packing: how its tasks travel.
    """

    def __init__(self, name: str, packing: Packing = PLAIN) -> None:
        self.name = name
        self.view = View(0, ())
        self.outbox = Outbox(name, self._route, packing)
        self.paused = False
        self._pace = 0
        self._census = True  # from a Hold until its Resolve; and before the first one
        self._behind = False  # somebody has refused us from a newer view; its Hold is on the way
        self._report_due = False
        self._last_seq: dict[str, int] = {}
        self._missing: dict[str, list[int]] = {}  # of the last delivery of each, if any

    @property
    def held(self) -> bool:
        """Whether nothing may be sent at present."""
        return self._census or self._behind

    def prepare(self, message: Prepare) -> bool:
        """Adopt a newer view and stop sending. False if the message is stale."""
        if message.view.number <= self.view.number:
            return False
        self.view = message.view
        self._census, self._behind = True, False
        self._report_due = True
        self._last_seq = {k: seq for k, seq in self._last_seq.items() if k in self.view.names}
        self._missing = {k: places for k, places in self._missing.items() if k in self.view.names}
        self.outbox.mark_lost(self.view)
        return True

    def report(self) -> Report | None:
        """The report of this view, once, as soon as no delivery to the living is unanswered."""
        if not self._report_due or self.outbox.busy:
            return None
        self._report_due = False
        return self._make_report()

    def commit_view(self, message: ViewCommit) -> bool:
        """The census has judged: drop the older copies, go on. False if the message is stale."""
        if message.view != self.view.number or not self._census or self._report_due:
            return False
        self._discard(message.discard)
        self._census = False
        self.outbox.reroute()
        return True

    def pace(self, message: Pace) -> bool:
        """Go on at another pace. False if the message is older than what is known."""
        if message.number <= self._pace:
            return False
        self._pace = message.number
        self.paused = message.paused
        return True

    def outgoing(self) -> list[tuple[str, Deliver]]:
        """Deliveries to send now, by destination."""
        return [] if self.held else self.outbox.next_deliveries(self.view.number)

    def answered(self, destination: str, answer: Delivered) -> None:
        """A delivery was answered. A refusal means this member is behind: it waits for its `Prepare`."""
        if not answer.accepted and answer.view > self.view.number:
            self._behind = True
        self.outbox.answered(destination, answer)

    def failed(self, destination: str, seq: int) -> bool:
        """A delivery got no answer. True if the destination is now to be suspected."""
        return self.outbox.failed(destination, seq)

    def _refusal(self, message: Deliver) -> Delivered | None:
        """None if the batch is new and of this view; otherwise the answer to give."""
        here = self.view.number
        last = self._last_seq.get(message.sender, 0)
        if message.seq <= last:
            again = self._missing.get(message.sender, []) if message.seq == last else []
            return Delivered(here, message.seq, True, again)
        if message.view != here or message.sender not in self.view.names:
            return Delivered(here, message.seq, False)
        self._last_seq[message.sender] = message.seq
        self._missing.pop(message.sender, None)
        return None

    def _route(self, target: str, id: TaskId) -> str | None:
        return self.view.route(target, id)

    def _make_report(self) -> Report:
        return Report(self.view.number, self.name, self.outbox.waiting(), self.outbox.uncertain())

    def _discard(self, ids: list[TaskId]) -> None:
        self.outbox.drop(ids)
