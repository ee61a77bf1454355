"""Grant the leases of one service process, at most `capacity` at a time.

A task holds one set of leases at a time, which it acquires at once: so no holder waits for another one. Sets
are granted in the order in which they were requested. A set is taken over by a newer copy of its task, and
is released by its holder, by the feeder when the task has ended, or by a feeder that does not know the task
(`messages`). It never expires.

The table refuses messages whose stamp is older than the newest one of their task, so a fenced holder does no
harm. A repeated step is answered with its last reply. If the history of a lease is not the one in a request,
its state is discarded and rebuilt from the recorded steps: the journal is authoritative, not the state.

`effects` returns the work for the process. The caller confirms each `Execute` with `executed`, and each
`Close` with `closed`; until then the resource counts as in use, and a set that replaces it is not granted.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from peerloom.idset import IdSet, partition_of
from peerloom.protocol.leases.messages import (
    FENCED,
    FULL,
    STALE,
    TOO_MANY,
    Acquire,
    Control,
    Granted,
    Refused,
    Release,
    Released,
    Reply,
    Request,
    Stamp,
    Step,
    StepReply,
    TaskResumed,
    TasksEnded,
    TasksEndedBefore,
    TasksInFlight,
    extend_history,
)
from peerloom.task import TaskId
from peerloom.turn import LeaseName

Ticket = Any
"""Identifies a request to the caller, which sends the answer."""


@dataclass(slots=True, eq=False)
class Lease:
    """One resource, and the last step executed on it.

    Attributes:
        spec: the description of the resource.
        resource: its state; set by the caller when it is first needed.
        history: the digest of all steps executed on it.
    """

    id: TaskId
    spec: bytes
    resource: Any = None
    history: bytes = b""
    running: Step | None = None
    last: Step | None = None
    reply: Reply | None = None
    tickets: list[Ticket] = field(default_factory=list[Ticket])
    is_closed: bool = False


@dataclass(slots=True, eq=False)
class LeaseSet:
    """The leases of one task."""

    name: LeaseName
    stamp: Stamp
    leases: list[Lease]
    ungranted: list[Ticket] = field(default_factory=list[Ticket])  # wait for replaced leases to be closed


@dataclass(slots=True, eq=False)
class _Waiter:
    message: Acquire
    tickets: list[Ticket]


class _Census(NamedTuple):
    """The tasks of a partition that were in flight in a view."""

    view: int
    ids: frozenset[TaskId]


@dataclass(frozen=True, slots=True)
class SendReply:
    """Send a reply to requests."""

    tickets: Sequence[Ticket]
    reply: Reply


@dataclass(frozen=True, slots=True)
class Execute:
    """Execute the running step of a lease; build its resource first if there is none."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Close:
    """Cancel the running step of a lease, and destroy its resource."""

    lease: Lease


Effect = SendReply | Execute | Close


class LeaseTable:
    """The leases of one service process.

    Args:
        capacity: the maximum number of leases at a time.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._sets: dict[TaskId, LeaseSet] = {}
        self._waiting: OrderedDict[TaskId, _Waiter] = OrderedDict()
        self._closing: Counter[TaskId] = Counter()
        self._stamps: dict[TaskId, Stamp] = {}  # the newest one of each task that has not ended
        self._ended = IdSet()
        self._censuses: dict[int, _Census] = {}  # by partition
        self._partitions = 1
        self._used = 0
        self._effects: list[Effect] = []

    @property
    def used(self) -> int:
        """The number of leases that are held, or not yet closed."""
        return self._used

    @property
    def waiting(self) -> int:
        """The number of tasks that wait for their leases."""
        return len(self._waiting)

    def effects(self) -> list[Effect]:
        """Return and clear the effects to carry out, in order."""
        effects, self._effects = self._effects, []
        return effects

    def handle(self, request: Request, ticket: Ticket) -> None:
        """Handle a request; its reply is, or will be, among the effects."""
        if not self._is_current(request.id, request.stamp):
            self._answer([ticket], Refused(FENCED))
            return
        self._observe(request.id, request.stamp)
        match request:
            case Acquire():
                self._acquire(request, ticket)
            case Step():
                self._step(request, ticket)
            case Release():
                self._close(request.id)
                self._answer([ticket], Released())

    def control(self, message: Control) -> None:
        """Handle a message of a feeder."""
        match message:
            case TasksEnded():
                self._ended.update(message.ids)
                self._forget(message.ids)
            case TaskResumed():
                self._resume(message)
            case TasksInFlight():
                self._note_census(message)
            case TasksEndedBefore():
                self._ended.merge_encoded(message.ids)

    def executed(self, lease: Lease, reply: Reply) -> None:
        """Note the reply to the running step of a lease; a `Refused` leaves its history as it was."""
        step, tickets = lease.running, lease.tickets
        if lease.is_closed or step is None:
            return  # it was cancelled, and comes too late
        lease.running, lease.tickets = None, []
        if isinstance(reply, StepReply):
            lease.last, lease.reply = step, reply
            lease.history = extend_history(lease.history, step.digest)
        self._answer(tickets, reply)

    def broken(self, lease: Lease, reply: Refused) -> None:
        """Note that a step has failed and left the state in doubt; the state is discarded."""
        held = self._sets.get(lease.id)
        if held is not None and not lease.is_closed:
            tickets, lease.tickets, lease.running = lease.tickets, [], None
            self._answer(tickets, reply)
            self._rebuild(held, held.leases.index(lease))

    def closed(self, lease: Lease) -> None:
        """Note that a lease is closed: its step has ended, and its resource is gone."""
        id = lease.id
        self._used -= 1
        self._closing[id] -= 1
        if not self._closing[id]:
            del self._closing[id]
            held = self._sets.get(id)
            if held is not None and held.ungranted:
                self._grant(held)
        self._grant_waiting()

    def cancel(self, id: TaskId, ticket: Ticket) -> None:
        """Remove a waiting request whose sender is gone."""
        waiter = self._waiting.get(id)
        if waiter is not None and ticket in waiter.tickets:
            waiter.tickets.remove(ticket)
            if not waiter.tickets:
                del self._waiting[id]
                self._grant_waiting()

    def _note_census(self, message: TasksInFlight) -> None:
        """Fence the copies that no feeder knows, also those whose requests arrive later."""
        earlier = self._censuses.get(message.partition)
        if earlier is None or earlier.view < message.view:
            self._partitions = message.partitions
            self._censuses[message.partition] = _Census(message.view, frozenset(message.ids))
            self._forget([id for id, stamp in self._stamps.items() if self._is_unknown(id, stamp)])

    def _is_unknown(self, id: TaskId, stamp: Stamp) -> bool:
        """Return whether a copy is not in the last census, which it should be in."""
        census = self._censuses.get(partition_of(id, self._partitions)) if self._censuses else None
        return census is not None and stamp.attempt < census.view and id not in census.ids

    def _is_current(self, id: TaskId, stamp: Stamp) -> bool:
        if id in self._ended or stamp < self._stamps.get(id, stamp):
            return False
        return id in self._stamps or not self._is_unknown(id, stamp)

    def _observe(self, id: TaskId, stamp: Stamp) -> None:
        """Fence all older messages of a task."""
        self._stamps[id] = stamp
        waiter = self._waiting.get(id)
        if waiter is not None and waiter.message.stamp < stamp:
            del self._waiting[id]
            self._answer(waiter.tickets, Refused(FENCED))
            self._grant_waiting()

    def _acquire(self, message: Acquire, ticket: Ticket) -> None:
        id = message.id
        held = self._sets.get(id)
        if held is not None and held.name == message.name:
            self._take_over(held, message, ticket)
            return
        if held is not None:
            self._close(id)
        if len(message.specs) > self.capacity:
            asked = len(message.specs)
            why = f"the task asked for {asked} leases, but each process has {self.capacity}: raise `leases`"
            self._answer([ticket], Refused(TOO_MANY, why))
            return
        waiter = self._waiting.setdefault(id, _Waiter(message, []))
        waiter.tickets.append(ticket)
        self._grant_waiting()
        if not message.wait and self._waiting.pop(id, None) is not None:
            self._answer(waiter.tickets, Refused(FULL))

    def _take_over(self, held: LeaseSet, message: Acquire, ticket: Ticket) -> None:
        if message.stamp > held.stamp:
            held.stamp = message.stamp
            self._answer(held.ungranted, Refused(FENCED))
            held.ungranted = []
            for slot, (lease, history) in enumerate(zip(held.leases, message.histories, strict=True)):
                if lease.running is not None or lease.history != history:
                    self._rebuild(held, slot)
        held.ungranted.append(ticket)
        if not self._closing[message.id]:
            self._grant(held)

    def _step(self, message: Step, ticket: Ticket) -> None:
        held = self._sets.get(message.id)
        if held is None or held.name != message.name or message.slot >= len(held.leases) or held.ungranted:
            self._answer([ticket], Refused(STALE))
            return
        if message.stamp > held.stamp:
            held.stamp = message.stamp
            for slot, other in enumerate(held.leases):
                if other.running is not None:  # of a copy that has gone on, or of an older one
                    self._rebuild(held, slot)
        lease = held.leases[message.slot]
        newest = lease.running or lease.last
        if newest == message:
            self._repeat(lease, ticket)
        elif newest is not None and newest.stamp == message.stamp and newest.number > message.number:
            self._answer([ticket], Refused(FENCED))  # a late duplicate
        elif lease.running is not None:  # an agent that no longer waits for it has gone on
            self._rebuild(held, message.slot)
            self._answer([ticket], Refused(STALE))
        elif lease.history != message.history:
            self._answer([ticket], Refused(STALE))
        else:
            lease.running, lease.tickets = message, [ticket]
            self._effects.append(Execute(lease))

    def _repeat(self, lease: Lease, ticket: Ticket) -> None:
        """SendReply a repeated step, without executing it again."""
        if lease.running is not None:
            lease.tickets.append(ticket)
        elif lease.reply is not None:
            self._answer([ticket], lease.reply)

    def _resume(self, message: TaskResumed) -> None:
        id, stamp = message.id, Stamp(message.attempt, 0, 0)
        if not self._is_current(id, stamp):
            return
        self._observe(id, stamp)
        held = self._sets.get(id)
        if held is None:
            return
        if held.name not in message.names:
            self._close(id)
        for slot, lease in enumerate(held.leases):
            if lease.running is not None and not lease.is_closed:
                self._rebuild(held, slot)

    def _forget(self, ids: Iterable[TaskId]) -> None:
        """Release everything of these tasks."""
        for id in ids:
            if self._stamps.pop(id, None) is None:
                continue  # it never held a lease here
            waiter = self._waiting.pop(id, None)
            if waiter is not None:
                self._answer(waiter.tickets, Refused(FENCED))
            self._close(id)
        self._grant_waiting()

    def _close(self, id: TaskId) -> None:
        held = self._sets.pop(id, None)
        if held is not None:
            self._answer(held.ungranted, Refused(FENCED))
            for lease in held.leases:
                self._close_lease(lease)

    def _rebuild(self, held: LeaseSet, slot: int) -> None:
        """Replace a lease by one without state."""
        lease = held.leases[slot]
        held.leases[slot] = Lease(lease.id, lease.spec)
        self._used += 1
        self._close_lease(lease)

    def _close_lease(self, lease: Lease) -> None:
        lease.is_closed = True
        self._answer(lease.tickets, Refused(FENCED))
        lease.tickets = []
        self._closing[lease.id] += 1
        self._effects.append(Close(lease))

    def _grant_waiting(self) -> None:
        while self._waiting:
            id, waiter = next(iter(self._waiting.items()))
            message = waiter.message
            if self._used + len(message.specs) > self.capacity:
                return
            del self._waiting[id]
            leases = [Lease(id, spec) for spec in message.specs]
            held = self._sets[id] = LeaseSet(message.name, message.stamp, leases, waiter.tickets)
            self._used += len(leases)
            if not self._closing[id]:
                self._grant(held)

    def _grant(self, held: LeaseSet) -> None:
        tickets, held.ungranted = held.ungranted, []
        self._answer(tickets, Granted([lease.history for lease in held.leases]))

    def _answer(self, tickets: Sequence[Ticket], reply: Reply) -> None:
        if tickets:
            self._effects.append(SendReply(tickets, reply))
