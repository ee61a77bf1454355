"""The protocol broken on purpose, one mechanism at a time, to see that the explorer notices.

Each bug stands in for a method of the core, or a few, and is given the original first.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import msgspec
import scenario
from world import World

from peerloom.idset import IdSet
from peerloom.protocol import census
from peerloom.protocol.coordinator import Coordinator, Member
from peerloom.protocol.feeder import Feeder
from peerloom.protocol.messages import (
    Ack,
    CommittedQuery,
    CommittedReply,
    Deliver,
    Delivered,
    Exhausted,
    Item,
    Report,
    Suspect,
    ViewCommit,
)
from peerloom.protocol.outbox import Outbox
from peerloom.protocol.participant import Participant
from peerloom.protocol.peer import Peer
from peerloom.protocol.quarantine import Quarantine
from peerloom.protocol.shard import ShardCommitter
from peerloom.protocol.view import SINK, View
from peerloom.task import Header, TaskId

Replacement = Callable[..., Any]

BUGS: dict[str, list[tuple[Any, str, Replacement]]] = {}

FOCUS: dict[str, list[tuple[tuple[str, ...], tuple[object, ...], str]]] = {
    "lost-batch-taken-for-granted": [(("deadline", "census"), (Delivered,), "")],
    "replaced-before-census": [scenario.THEMES[1]],
    "late-discard-hits-new-copy": [scenario.THEMES[0]],
    "older-copy-wins": [(("deadline", "census"), (Delivered, Suspect, ViewCommit), SINK)],
    "waits-for-nobody": [(("many",), (Ack, scenario.DISK), SINK)],
}
"""For bugs that are rarely felt: in what histories they are."""


def bug(owner: Any, function: str, name: str = "") -> Callable[[Replacement], Replacement]:
    """Register a replacement for a method, property or function; for the bug `name`, else a new one."""

    def register(replacement: Replacement) -> Replacement:
        key = name or replacement.__name__.replace("_", "-")
        BUGS.setdefault(key, []).append((owner, function, replacement))
        return replacement

    return register


@contextmanager
def planted(name: str) -> Iterator[None]:
    """The protocol with this bug in it."""
    with ExitStack() as patches:
        for owner, function, replacement in BUGS[name]:
            original = owner.__dict__[function]
            if isinstance(original, property):
                broken: object = property(partial(replacement, original.fget))
            else:
                broken = _instead(original, replacement)
            patches.enter_context(patch.object(owner, function, broken))
        patches.enter_context(patch.object(scenario, "focus", FOCUS.get(name, [])))
        yield


def _instead(original: Replacement, replacement: Replacement) -> Replacement:
    def broken(*arguments: Any, **named: Any) -> Any:
        return replacement(original, *arguments, **named)

    return broken


# The sink.


@bug(ShardCommitter, "acks")
def dropped_acknowledgement(original: Any, shard: ShardCommitter) -> list[tuple[str, Ack]]:
    """Of a group, only the first row is acknowledged."""
    return [(name, Ack(ack.view, ack.sender, ack.ids[:1])) for name, ack in original(shard)]


@bug(ShardCommitter, "deliver")
def second_commit(original: Any, shard: ShardCommitter, message: Deliver) -> Delivered:
    """A shard looks at what it has neither when a row comes, nor for the census."""
    answer = shard._refusal(message)
    if answer is None:
        shard._queue.update((item.header.id, item) for item in message.items)
        answer = Delivered(shard.view.number, message.seq, True)
    return answer


@bug(ShardCommitter, "query", "second-commit")
def nothing_is_here(original: Any, shard: ShardCommitter, message: CommittedQuery) -> CommittedReply:
    """The other half of it."""
    return CommittedReply(message.view, shard.name, [], [], IdSet().encode() if message.everything else b"")


@bug(ShardCommitter, "group")
def permit_freed_before_fsync(original: Any, shard: ShardCommitter) -> list[Item]:
    """Rows are acknowledged when their group begins."""
    group = original(shard)
    shard._to_ack += [item.header.id for item in group]
    return group


@bug(ShardCommitter, "query")
def queue_not_told(original: Any, shard: ShardCommitter, message: CommittedQuery) -> CommittedReply | None:
    """The census does not hear of rows that are not on disk yet."""
    have = original(shard, message)
    return have and CommittedReply(have.view, have.sender, have.committed, [], have.past)


@bug(ShardCommitter, "query")
def queue_told_only_if_named(
    original: Any, shard: ShardCommitter, message: CommittedQuery
) -> CommittedReply | None:
    """A fresh feeder does not hear of queued rows that nobody else knows."""
    have = original(shard, message)
    return have and CommittedReply(
        have.view, have.sender, have.committed, [id for id in have.queued if id in message.ids], have.past
    )


@bug(ShardCommitter, "__init__")
def past_rows_forgotten(original: Any, shard: ShardCommitter, name: str, committed: IdSet) -> None:
    """A shard does not know the rows of its predecessors."""
    original(shard, name, IdSet())


@bug(World, "may_take_shard")
def older_incarnation_takes_over(original: Any, world: World, member: Member) -> bool:
    """A sink that was given up while it started takes the shard from its successor."""
    return True


# Peers, and what all members have in common.


@bug(Participant, "_refusal")
def stale_view_accepted(original: Any, member: Participant, message: Deliver) -> Delivered | None:
    """A receiver takes what was sent in an older view."""
    if message.view < member.view.number and message.seq > member._last_seq.get(message.sender, 0):
        member._last_seq[message.sender] = message.seq
        return None
    return original(member, message)


@bug(Participant, "_refusal")
def delivery_taken_twice(original: Any, member: Participant, message: Deliver) -> Delivered | None:
    """A receiver does not know a delivery again."""
    member._last_seq.clear()
    return original(member, message)


@bug(Outbox, "failed")
def uncertain_batch_sent_again(original: Any, outbox: Outbox, destination: str, seq: int) -> bool:
    """A sender does not wait for the census, but tries again."""
    for target, item in outbox._finish(destination, seq):
        outbox.put(target, item)
    return True


@bug(Outbox, "uncertain")
def uncertain_not_reported(original: Any, outbox: Outbox) -> list[Header]:
    """A sender takes for granted that what it sent has arrived."""
    return []


@bug(Participant, "report")
def report_before_answers(original: Any, member: Participant) -> Report | None:
    """A member reports although it does not know yet whether its deliveries were taken."""
    if not member._report_due:
        return None
    member._report_due = False
    return member._make_report()


@bug(Participant, "held")
def sends_during_census(original: Any, member: Participant) -> bool:
    """A member goes on sending while the census counts."""
    return member.view.number == 0


@bug(Peer, "send")
def counted_where_it_was(original: Any, peer: Peer, before: Header, target: str, item: Item) -> None:
    """A peer still reports the tasks that it has handed over."""
    original(peer, before, target, item)
    peer.__dict__.setdefault("handed_over", []).append(before)


@bug(Peer, "_make_report", "counted-where-it-was")
def handed_over_reported(original: Any, peer: Peer) -> Report:
    """The other half of it."""
    report = original(peer)
    return msgspec.structs.replace(report, holding=[*report.holding, *peer.__dict__.get("handed_over", [])])


@bug(Peer, "_discard")
def discard_ignored(original: Any, peer: Peer, ids: list[TaskId]) -> None:
    """A peer keeps a copy although another one has won."""


@bug(Peer, "_accept")
def late_discard_hits_new_copy(original: Any, peer: Peer, item: Item) -> None:
    """A peer drops the copy that won, because it hears late that its own one had lost."""
    reported = peer._reported.copy()
    original(peer, item)
    peer._reported = reported


@bug(Outbox, "confirm_taken")
def returned_task_kept_twice(original: Any, outbox: Outbox, ids: Any) -> None:
    """A member keeps the copy it had sent, though the task has come back to it."""


@bug(Outbox, "failed")
def settled_delivery_fails(original: Any, outbox: Outbox, destination: str, seq: int) -> bool:
    """A deadline that comes after the answer stops the queue."""
    failed = original(outbox, destination, seq)
    outbox._idle.pop(destination, None)
    return failed


# The feeder.


@bug(Feeder, "ack")
def stale_acknowledgement_accepted(original: Any, feeder: Feeder, message: Ack) -> list[TaskId]:
    """A feeder believes a sink that was fenced off."""
    if feeder._fresh:
        feeder.past.update(message.ids)
    return feeder._free(message.ids)


@bug(Feeder, "lost")
def lost_not_admitted_again(original: Any, feeder: Feeder) -> list[TaskId]:
    """A feeder does not admit again what is lost."""
    return []


@bug(Feeder, "room")
def fresh_feeder_admits(original: Any, feeder: Feeder) -> int:
    """A feeder admits before it knows what its predecessor did."""
    if feeder.held or feeder._source_ended:
        return 0
    return max(0, feeder.in_flight - len(feeder._permits))


@bug(Feeder, "ack")
def early_acknowledgement_forgotten(original: Any, feeder: Feeder, message: Ack) -> list[TaskId]:
    """A fresh feeder does not remember what is acknowledged before it knows of it."""
    return feeder._free(message.ids) if message.view == feeder.view.number else []


@bug(Feeder, "exhausted")
def exhausted_with_permits_out(original: Any, feeder: Feeder) -> Exhausted | None:
    """A feeder that has read its source says that it is done, though tasks are in flight."""
    if feeder.held or not feeder._source_ended or feeder._exhausted_sent:
        return None
    feeder._exhausted_sent = True
    return Exhausted(feeder.view.number, feeder.name)


# Tasks that kill their process.


@bug(Quarantine, "deaths")
def poison_never_condemned(original: Any, quarantine: Quarantine, id: TaskId, hop: int) -> int:
    """A task that has killed its process alone, twice, is tried again."""
    return 0


@bug(Quarantine, "lost")
def company_is_blamed(original: Any, quarantine: Quarantine, ids: list[TaskId], **died: bool) -> None:
    """All suspects are let in together, and each is blamed for the death of all."""
    aboard = [id for id in ids if id in quarantine._running]
    original(quarantine, ids, **died)
    if died["alone"] and len(aboard) > 1:
        for id in aboard:
            quarantine._deaths[id].alone += 1


@bug(Quarantine, "release", "company-is-blamed")
@bug(Quarantine, "release")
def crowd_let_in(original: Any, quarantine: Quarantine) -> list[Item]:
    """All suspects are alone together, always."""
    quarantine._limit = 1_000
    quarantine._implicated.clear()
    return original(quarantine)


@bug(Quarantine, "lost")
def counted_but_not_aboard(original: Any, quarantine: Quarantine, ids: Any, **died: bool) -> None:
    """Who was lost is still believed to be aboard."""
    aboard = dict(quarantine._running)
    original(quarantine, ids, **died)
    quarantine._running = aboard


@bug(Quarantine, "passed")
def places_leak(original: Any, quarantine: Quarantine, headers: Any) -> None:
    """Who has left keeps its place."""


@bug(Quarantine, "forget", "places-leak")
def place_of_the_committed(original: Any, quarantine: Quarantine, id: TaskId) -> None:
    """The other half of it."""
    aboard = dict(quarantine._running)
    original(quarantine, id)
    quarantine._running = aboard


@bug(Feeder, "isolate")
def no_process_for_suspects(original: Any, feeder: Feeder) -> None:
    """Nobody asks for the process where suspects are alone."""


# The coordinator and its judgement.


@bug(census, "_ranked")
def older_copy_wins(
    original: Any, report: Report, journal: bool
) -> list[tuple[Header, tuple[tuple[int, int], bool]]]:
    """Of two copies the one that has come less far is kept."""
    return [(h, ((-h.attempt, -h.hop), certain)) for h, (_, certain) in original(report, journal)]


@bug(Outbox, "mark_lost")
def lost_batch_taken_for_granted(original: Any, outbox: Outbox, view: View) -> None:
    """What was on its way to a member that is lost is forgotten."""
    original(outbox, view)
    outbox._uncertain.clear()


@bug(Participant, "commit_view")
def stale_verdict_accepted(original: Any, member: Participant, message: ViewCommit) -> bool:
    """A member takes the end of an older census for that of the present one."""
    return original(member, msgspec.structs.replace(message, view=member.view.number))


@bug(Coordinator, "lost")
def replaced_before_census(original: Any, coordinator: Coordinator, name: str, why: str = "") -> None:
    """A lost sink is replaced while the living may still believe it."""
    member = coordinator._alive.get(name)
    original(coordinator, name, why)
    if member is not None and member.slot not in {m.slot for m in coordinator._starting.values()}:
        coordinator._spawn(Member(member.kind, member.index, member.incarnation + 1, member.roles))


@bug(Coordinator, "_ask_sinks")
def waits_for_nobody(original: Any, coordinator: Coordinator) -> None:
    """When the last member is lost, the coordinator waits for reports."""
    if coordinator.view.members:
        original(coordinator)


@bug(Coordinator, "receive")
def stale_report_accepted(original: Any, coordinator: Coordinator, message: Any) -> None:
    """The coordinator takes a report of an older view for one of this."""
    if isinstance(message, Report) and message.sender in coordinator._alive:
        coordinator._reports.setdefault(message.sender, message)
        coordinator._ask_sinks()
    else:
        original(coordinator, message)
