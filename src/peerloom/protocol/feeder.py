"""The feeder: admission is the only valve.

A permit is an id that has been admitted and is not yet acknowledged as safe on disk; there are at most
`in_flight` of them. They are a set, not a counter, so freeing one twice is harmless. A feeder that has
just joined is fresh: it learns from a census with all sinks present what is in flight and what was
committed, and admits nothing before that.

A task that is lost with its peer again and again goes to `quarantine.py`. Its counts die with the feeder:
another one finds them again.
"""

from collections import Counter

from peerloom.idset import IdSet
from peerloom.protocol.messages import (
    Ack,
    DoneQuery,
    DoneReply,
    Drain,
    Exhausted,
    Isolate,
    Item,
    Passed,
    Prepare,
    Report,
    ViewCommit,
)
from peerloom.protocol.participant import Participant
from peerloom.protocol.quarantine import Quarantine
from peerloom.protocol.view import ALONE, PEER, TO_ALONE, TO_SINK
from peerloom.task import Header, TaskId


class Feeder(Participant):
    """State of one feeder.

    Args:
        name: the member's name.
        in_flight: most permits at once; if it is lowered, those that are out come back first.
        role: where new tasks go.
    """

    def __init__(self, name: str, in_flight: int, role: str) -> None:
        super().__init__(name)
        self.past = IdSet()
        self.in_flight = in_flight
        self._role = role
        self._permits: dict[TaskId, str | None] = {}  # and the peer each was given to
        self._load: Counter[str] = Counter()
        self._lost: dict[TaskId, None] = {}
        self._quarantine = Quarantine()
        self._lost_slots: set[tuple[str, int]] = set()  # the slots of members lost since the last census
        self._fresh = True
        self._source_ended = False
        self._exhausted_sent = False
        self._isolate_sent = False

    @property
    def room(self) -> int:
        """How many new tasks may be admitted now."""
        if self.held or self.paused or self._source_ended or self._fresh:
            return 0
        return max(0, self.in_flight - len(self._permits))

    @property
    def permits(self) -> int:
        """How many tasks are in flight."""
        return len(self._permits)

    def admit(self, items: list[Item], target: str | None = None) -> None:
        """Send tasks on their way, to the first role or to `target`; lost ones come here again."""
        for item in items:
            id = item.header.id
            if id in self._permits and id not in self._lost:
                continue  # a census found another copy while this one was being made
            self._lost.pop(id, None)
            self._permits.setdefault(id, None)
            if target != TO_SINK and self._quarantine.suspects(id):
                self._quarantine.add(item)
            else:
                self.outbox.put(target or self._role, item)
        self._admit_suspects()

    def deaths(self, id: TaskId, hop: int) -> int:
        """How often its process has died, if a lost task is poison, which then is admitted as a failed row.

        0 if it is none. `hop` is how far it has come; asked before the task is admitted again.
        """
        return self._quarantine.deaths(id, hop)

    def passed(self, message: Passed) -> None:
        """Suspects have got through their turn alone."""
        if message.view == self.view.number and message.sender in self.view.names:
            self._quarantine.passed(message.headers)
            self._admit_suspects()

    def isolate(self) -> Isolate | None:
        """Told once a view: there are suspects, and no process for them."""
        if self.held or self._isolate_sent or not self._quarantine.active or self._alone in self.view.slots:
            return None
        self._isolate_sent = True
        return Isolate(self.view.number, self.name)

    def attempt(self) -> int:
        """The attempt number of whatever is admitted now."""
        return self.view.number

    def knows(self, id: TaskId) -> bool:
        """Whether an id that the source offers was admitted or committed before."""
        return id in self._permits or id in self.past

    def is_done(self, id: TaskId) -> bool:
        """Whether the row of an id is known to be safe on disk."""
        return id in self.past and id not in self._permits

    def done(self, message: DoneQuery) -> DoneReply:
        """Which of these are done; none as long as this feeder is fresh, or for another view."""
        known = not self._fresh and message.view == self.view.number and message.sender in self.view.names
        return DoneReply([id for id in message.ids if self.is_done(id)] if known else [])

    def lost(self) -> list[TaskId]:
        """Ids to be admitted again; they stay here until they are."""
        return [] if self.held else list(self._lost)

    def ack(self, message: Ack) -> list[TaskId]:
        """Free permits; what was freed. Acknowledgements of another view are refused."""
        if message.view != self.view.number or message.sender not in self.view.names:
            return []
        self.past.update(message.ids)
        freed = self._free(message.ids)
        self._admit_suspects()
        return freed

    def source_ended(self) -> None:
        """The source has no more rows."""
        self._source_ended = True

    def drain(self, _: Drain) -> None:
        """Admit nothing more, but for what was lost."""
        self._source_ended = True

    def exhausted(self) -> Exhausted | None:
        """Told once a view: nothing left to admit and nothing in flight."""
        if self.held or not self._source_ended or self._permits or self._exhausted_sent:
            return None
        self._exhausted_sent = True
        return Exhausted(self.view.number, self.name)

    def prepare(self, message: Prepare) -> bool:
        """Adopt a newer view; who is not in it any more has died."""
        before = self.view
        if not super().prepare(message):
            return False
        self._lost_slots.update(
            member.slot for member in before.members if member.name not in self.view.names
        )
        return True

    def commit_view(self, message: ViewCommit) -> bool:
        """End the census: free what is committed, take over what is in flight, re-admit what is lost."""
        if not super().commit_view(message):
            return False
        for past in message.past:
            self.past.merge_encoded(past)
        for id in message.adopt:
            if id not in self.past:  # else acknowledged since the sinks were asked
                self.past.add(id)
                self._permits[id] = None
        self.past.update(message.done)
        self._free(message.done)
        self._lost.update((id, None) for id in message.lost if id in self._permits)
        self._fresh = self._fresh and len(message.past) < self.view.shards
        self._exhausted_sent = self._isolate_sent = False
        self._update_quarantine(message)
        return True

    def _update_quarantine(self, message: ViewCommit) -> None:
        lost = [id for id in message.lost if id in self._permits]
        peer = any(kind == PEER for kind, _ in self._lost_slots)
        self._quarantine.lost(lost, peer=peer, alone=self._alone in self._lost_slots)
        self._lost_slots.clear()
        running = [header for header in message.alone if header.id in self._permits]
        self._quarantine.reconcile(waiting=self.outbox.waiting(), running=running)
        self._admit_suspects()

    @property
    def _alone(self) -> tuple[str, int]:
        """The slot of the process for this feeder's suspects."""
        [index] = [member.index for member in self.view.members if member.name == self.name]
        return ALONE, index

    def _admit_suspects(self) -> None:
        for item in self._quarantine.release():
            self.outbox.put(TO_ALONE, item)

    def _free(self, ids: list[TaskId]) -> list[TaskId]:
        freed: list[TaskId] = []
        for id in ids:
            if id in self._permits:
                peer = self._permits.pop(id)
                if peer is not None:
                    self._load[peer] -= 1
                self._quarantine.forget(id)
                freed.append(id)
        return freed

    def _route(self, target: str, id: TaskId) -> str | None:
        """The least loaded host, for roles; whatever it was given to before no longer counts."""
        hosts = self.view.hosts(target)
        if not hosts:
            return self.view.route(target, id)
        before = self._permits.get(id)
        if before is not None:
            self._load[before] -= 1
        peer = min(hosts, key=self._load.__getitem__)
        self._load[peer] += 1
        self._permits[id] = peer
        return peer

    def _make_report(self) -> Report:
        report = super()._make_report()
        attempt = self.view.number - 1  # anything that is really somewhere is newer, or was admitted here
        again = [Header(id, attempt) for id in self._lost]
        return Report(
            self.view.number,
            self.name,
            [*report.holding, *self._quarantine.waiting(), *again],
            report.uncertain,
            list(self._permits),
            self._fresh,
        )

    def _discard(self, ids: list[TaskId]) -> None:
        super()._discard(ids)
        self._quarantine.discard(ids)
        for id in ids:
            self._lost.pop(id, None)
