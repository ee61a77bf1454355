"""The handling of leases broken on purpose; see bugs.py."""

from typing import Any

from bugs import BUGS, FOCUS, bug
from scenario import AGENT

from peerloom.protocol.feeder import Feeder
from peerloom.protocol.leases.held import HeldLeases
from peerloom.protocol.leases.messages import Control, Release, Step, TasksEnded, TasksInFlight
from peerloom.protocol.leases.table import Execute, Lease, LeaseTable
from peerloom.protocol.view import FEEDER, PEER


@bug(LeaseTable, "control")
def leases_of_ended_tasks_leaked(original: Any, table: LeaseTable, message: Control) -> None:
    """A feeder's word that tasks have ended is not heeded."""
    if not isinstance(message, TasksEnded):
        original(table, message)


@bug(LeaseTable, "control")
def leases_of_unknown_tasks_leaked(original: Any, table: LeaseTable, message: Control) -> None:
    """What a feeder does not know after a census keeps its leases."""
    if not isinstance(message, TasksInFlight):
        original(table, message)


@bug(LeaseTable, "_is_current")
def older_holder_not_fenced(original: Any, table: LeaseTable, id: Any, stamp: Any) -> bool:
    """An older copy of a task may do what it likes with its leases."""
    return id not in table._ended


@bug(LeaseTable, "handle")
def older_release_obeyed(original: Any, table: LeaseTable, request: Any, ticket: Any) -> None:
    """A copy that was fenced off can release what its heir holds."""
    if isinstance(request, Release):
        table._close(request.id)
    original(table, request, ticket)


@bug(LeaseTable, "_take_over")
def unrecorded_step_kept(original: Any, table: LeaseTable, held: Any, message: Any, ticket: Any) -> None:
    """A state is taken over as it is, whatever the journal says."""
    for lease, history in zip(held.leases, message.histories, strict=True):
        lease.history = history
    original(table, held, message, ticket)


@bug(LeaseTable, "_repeat")
def repeated_step_executed_again(original: Any, table: LeaseTable, lease: Lease, ticket: Any) -> None:
    """A step that comes again is executed again."""
    if lease.running is None:
        lease.running, lease.tickets = lease.last, [ticket]
        table._effects.append(Execute(lease))
    else:
        original(table, lease, ticket)


@bug(LeaseTable, "_step")
def history_not_compared(original: Any, table: LeaseTable, message: Step, ticket: Any) -> None:
    """A step is executed upon whatever was there before."""
    held = table._sets.get(message.id)
    if held is not None and message.slot < len(held.leases):
        lease = held.leases[message.slot]
        if lease.running is None and lease.last != message:
            lease.history = message.history
    original(table, message, ticket)


@bug(LeaseTable, "_grant_waiting")
def capacity_exceeded(original: Any, table: LeaseTable) -> None:
    """One lease too many is granted."""
    table._used -= 1
    original(table)
    table._used += 1


@bug(LeaseTable, "_take_over")
def granted_before_the_old_step_has_ended(
    original: Any, table: LeaseTable, held: Any, message: Any, ticket: Any
) -> None:
    """A lease is taken over while its last holder's step is still being executed."""
    original(table, held, message, ticket)
    if held.ungranted:
        table._grant(held)


@bug(Feeder, "resumed")
def suspects_keep_their_leases(original: Any, feeder: Feeder, header: Any, names: Any) -> None:
    """A suspect that waits in quarantine keeps what the one before it waits for."""
    suspects, feeder._quarantine.suspects = feeder._quarantine.suspects, lambda id: False  # type: ignore[method-assign]
    original(feeder, header, names)
    feeder._quarantine.suspects = suspects  # type: ignore[method-assign]


@bug(LeaseTable, "_grant_waiting")
def sets_granted_piecemeal(original: Any, table: LeaseTable) -> None:
    """Whoever waits keeps what is free for itself meanwhile: so two can wait for each other."""
    for id, waiter in list(table._waiting.items()):
        kept: list[Lease] = table.__dict__.setdefault("_kept", {}).setdefault(id, [])
        while table._used < table.capacity and len(kept) < len(waiter.message.specs):
            kept.append(Lease(id, b""))
            table._used += 1
        if len(kept) == len(waiter.message.specs):
            table._used -= len(kept)
            kept.clear()
            table._waiting.move_to_end(id, last=False)
            original(table)


@bug(HeldLeases, "_regain")
def later_leases_kept_while_waiting(original: Any, leases: HeldLeases) -> Any:
    """A task that has lost its leases of one service waits for others with those of another in its hands."""
    for holder in leases.holders.values():
        if holder.held is not None and not holder.is_granted:
            yield from holder.request_set()


@bug(HeldLeases, "acquire")
def services_in_any_order(original: Any, leases: HeldLeases, specs: Any) -> Any:
    """Leases of several services are acquired in an order that differs from task to task."""
    wanted = [leases.holders[service] for service in specs]
    for holder in wanted:
        holder.choose(specs[holder.service])
    for holder in reversed(wanted) if leases._header.id.row % 2 else wanted:
        yield from holder.request_set()


for name, [(owner, *_), *_] in BUGS.items():
    if owner in (LeaseTable, HeldLeases):
        FOCUS[name] = [(("service", "kill", "suspect", "stop"), (AGENT,), PEER)]
FOCUS["leases-of-unknown-tasks-leaked"] = [(("service", "heirs", "kill"), (AGENT,), FEEDER)]
