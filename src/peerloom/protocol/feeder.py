"""Admit tasks, at most `in_flight` at a time; nothing else limits the flow of tasks.

A permit is an id that has been admitted and not yet acknowledged as durable. Permits form a set, not a
counter, so freeing one twice is harmless. A feeder that has just joined is fresh: it admits nothing until a
census with all sinks has told it which tasks are in flight and which are committed.

Tasks that are lost with their peer repeatedly go through `quarantine.py`. A replacement feeder starts with
empty counts of deaths.
"""

from collections import Counter
from collections.abc import Iterable

from peerloom.idset import IdSet
from peerloom.protocol.leases.messages import Control, LeaseName, TaskResumed, TasksEnded, TasksInFlight
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
    """The protocol state of one feeder.

    Args:
        name: the member's name.
        in_flight: the maximum number of permits; lowering it revokes none.
        leases: whether tasks may hold leases, so that services must be told which of them have ended.
    """

    def __init__(self, name: str, in_flight: int, *, leases: bool = False) -> None:
        super().__init__(name)
        self.past = IdSet()
        self.in_flight = in_flight
        self._permits: dict[TaskId, str | None] = {}  # with the peer that each task was sent to
        self._load: Counter[str] = Counter()
        self._lost: dict[TaskId, None] = {}
        self._quarantine = Quarantine()
        self._lost_slots: set[tuple[str, int]] = set()  # the slots of members lost since the last census
        self._fresh = True
        self._source_ended = False
        self._exhausted_sent = False
        self._isolate_sent = False
        self._leases = leases
        self._controls: list[Control] = []

    @property
    def room(self) -> int:
        """The number of new tasks that may be admitted now."""
        if self.held or self.paused or self._source_ended or self._fresh:
            return 0
        return max(0, self.in_flight - len(self._permits))

    @property
    def permits(self) -> int:
        """The number of tasks in flight."""
        return len(self._permits)

    def admit(self, item: Item, target: str) -> None:
        """Admit a task, new or lost, and send it to its target."""
        id = item.header.id
        if id in self._permits and id not in self._lost:
            return  # a census has found another copy meanwhile
        self._lost.pop(id, None)
        self._permits.setdefault(id, None)
        if target != TO_SINK and self._quarantine.suspects(id):
            self._quarantine.add(item)
            self._admit_suspects()
        else:
            self.outbox.put(target, item)

    def deaths(self, id: TaskId, hop: int) -> int:
        """Return the deaths that a lost task has caused if it is poison, or 0. Call it before `admit`.

        A poison task must be admitted as a failed row. `hop` is the last hop known of the task.
        """
        return self._quarantine.deaths(id, hop)

    def passed(self, message: Passed) -> None:
        """Clear suspects that have completed their turn in quarantine."""
        if message.view == self.view.number and message.sender in self.view.names:
            self._quarantine.passed(message.headers)
            self._admit_suspects()

    def isolate(self) -> Isolate | None:
        """Return a request for a quarantine peer, once in each view, if suspects lack one."""
        if self.held or self._isolate_sent or not self._quarantine.active or self._alone in self.view.slots:
            return None
        self._isolate_sent = True
        return Isolate(self.view.number, self.name)

    def resumed(self, header: Header, names: Iterable[LeaseName]) -> None:
        """Note that a lost task is admitted again, and which leases its copy names.

        A suspect gives its leases up: it may wait behind another one that waits for them.
        """
        if self._leases:
            kept = [] if self._quarantine.suspects(header.id) else list(names)
            self._controls.append(TaskResumed(header.id, header.attempt, kept))

    def controls(self) -> list[Control]:
        """Return the messages to the services whose leases tasks hold, in any order."""
        controls, self._controls = self._controls, []
        return controls

    def attempt(self) -> int:
        """Return the attempt number of tasks admitted now."""
        return self.view.number

    def knows(self, id: TaskId) -> bool:
        """Return whether an id was admitted or committed before."""
        return id in self._permits or id in self.past

    def is_done(self, id: TaskId) -> bool:
        """Return whether the row of an id is known to be durable."""
        return id in self.past and id not in self._permits

    def done(self, message: DoneQuery) -> DoneReply:
        """Return which of the ids are done; none while this feeder is fresh, or for another view."""
        known = not self._fresh and message.view == self.view.number and message.sender in self.view.names
        return DoneReply([id for id in message.ids if self.is_done(id)] if known else [])

    def lost(self) -> list[TaskId]:
        """Return the ids to admit again; each remains until it is admitted."""
        return [] if self.held else list(self._lost)

    def ack(self, message: Ack) -> list[TaskId]:
        """Take back the permits of durable rows, and return their ids; ignore another view's message."""
        if message.view != self.view.number or message.sender not in self.view.names:
            return []
        self.past.update(message.ids)
        freed = self._free(message.ids)
        self._admit_suspects()
        return freed

    def source_ended(self) -> None:
        """Note that the source has no more rows."""
        self._source_ended = True

    def drain(self, _: Drain) -> None:
        """Admit no new tasks from now on; lost ones are still admitted again."""
        self._source_ended = True

    def exhausted(self) -> Exhausted | None:
        """Return the message, once in each view, that nothing is left to admit or in flight."""
        if self.held or not self._source_ended or self._permits or self._exhausted_sent:
            return None
        self._exhausted_sent = True
        return Exhausted(self.view.number, self.name)

    def prepare(self, message: Prepare) -> bool:
        """Adopt a newer view, and note which members were lost."""
        before = self.view
        if not super().prepare(message):
            return False
        self._lost_slots.update(
            member.slot for member in before.members if member.name not in self.view.names
        )
        return True

    def commit_view(self, message: ViewCommit) -> bool:
        """End the census: free committed ids, adopt those in flight, and mark lost ones to be re-admitted."""
        if not super().commit_view(message):
            return False
        for past in message.past:
            self.past.merge_encoded(past)
        for id in message.adopt:
            if id not in self.past:  # else acknowledged after the sinks replied
                self.past.add(id)
                self._permits[id] = None
        self.past.update(message.done)
        self._free(message.done)
        self._lost.update((id, None) for id in message.lost if id in self._permits)
        self._fresh = self._fresh and len(message.past) < self.view.shards
        self._exhausted_sent = self._isolate_sent = False
        self._update_quarantine(message)
        if self._leases and not self._fresh:
            permits = list(self._permits)
            self._controls.append(
                TasksInFlight(self.view.number, self._partition, self.view.partitions, permits)
            )
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
        """The slot of this feeder's quarantine peer."""
        return ALONE, self._partition

    @property
    def _partition(self) -> int:
        [index] = [member.index for member in self.view.members if member.name == self.name]
        return index

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
        if self._leases and freed:
            self._controls.append(TasksEnded(freed))
        return freed

    def _route(self, target: str, id: TaskId) -> str | None:
        """Return the least loaded host of a role, and move the load of the task there."""
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
        attempt = self.view.number - 1  # older than any existing copy that this feeder did not admit
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
