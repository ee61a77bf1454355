"""Coordinate the members of a run: open a view on every membership change, and run its census.

A census asks all members which tasks they hold, then asks the sinks which of those ids are committed. Any
change of membership restarts it in the next view. Replacements for lost members are started only after a
census without them has ended: by then every feeder refuses the acknowledgements of the old sink, so a sink
that was merely slow is fenced before another process takes over its shard.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from peerloom.protocol.census import judge, reported_ids
from peerloom.protocol.messages import (
    CommittedQuery,
    CommittedReply,
    Exhausted,
    Isolate,
    Message,
    Prepare,
    Report,
    Suspect,
    ToCoordinator,
)
from peerloom.protocol.view import ALONE, FEEDER, PEER, SINK, Member, View


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message to a member."""

    to: str
    message: Message


@dataclass(frozen=True, slots=True)
class Kill:
    """Make sure that a member is dead. `why` is the reason."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a member; call `joined` or `lost` with the outcome."""

    member: Member


Effect = Send | Kill | Spawn


class Coordinator:
    """The protocol state of the coordinator; one per run.

    Args:
        slots: the wanted members, as their first incarnations.
        partitions: number of feeders.
        shards: number of sinks.
        journal: whether the work of a lost member can be recovered from a journal.
        last_view: the greatest view number that earlier sessions of the run may have used.
    """

    def __init__(
        self,
        slots: Iterable[Member],
        partitions: int,
        shards: int,
        *,
        journal: bool = False,
        last_view: int = 0,
    ) -> None:
        self._wanted = {member.slot: member for member in slots}
        self._first_incarnation = min(member.incarnation for member in self._wanted.values())
        self._journal = journal
        self._alive: dict[str, Member] = {}
        self._starting: dict[str, Member] = {}
        self._waiting: set[str] = set()  # members in `_starting` that have no room at present
        self._reports: dict[str, Report] = {}
        self._replies: dict[str, CommittedReply] = {}
        self._exhausted: set[str] = set()
        self._in_census = False
        self._started = False  # whether the first view was opened
        self._effects: list[Effect] = []
        self.view = View(last_view, (), partitions, shards)

    def start(self) -> None:
        """Start all members; the first view opens when they have joined."""
        for member in self._wanted.values():
            self._spawn(member)

    def effects(self) -> list[Effect]:
        """Return and clear the effects to carry out, in order."""
        effects, self._effects = self._effects, []
        return effects

    @property
    def settled(self) -> bool:
        """Whether all wanted members that have room have joined, and no census is under way."""
        return self._started and not self._in_census and self._is_complete()

    @property
    def finished(self) -> bool:
        """Whether every feeder of the present view is exhausted."""
        feeders = self.view.of(FEEDER)
        return (
            not self._in_census
            and len(feeders) == self.view.partitions
            and all(member.name in self._exhausted for member in feeders)
        )

    def joined(self, name: str) -> None:
        """Add a started member to the run."""
        member = self._starting.pop(name, None)
        if member is None:
            self._effects.append(Kill(name, "it is no longer wanted"))
            return
        self._waiting.discard(name)
        self._alive[name] = member
        if self._started or self._is_complete():
            self._open_view()

    def no_room(self, name: str) -> None:
        """Note that a member has no room at present: the run begins without it if every role has a host."""
        if name in self._starting and name not in self._waiting:
            self._waiting.add(name)
            if not self._started and self._is_complete():
                self._open_view()

    def lost(self, name: str, why: str = "") -> None:
        """Replace a member that is dead or must be treated as dead. Idempotent."""
        self._waiting.discard(name)
        starting = self._starting.pop(name, None)
        member = starting or self._alive.pop(name, None)
        if member is None:
            return
        self._effects.append(Kill(name, why))
        if starting is not None or not self._started:
            self._spawn(_next(member))
        else:
            self._open_view()

    def census(self) -> None:
        """Start a census of the present members, unless one is under way."""
        if not self._in_census and self._started:
            self._open_view()

    def receive(self, message: ToCoordinator) -> None:
        """Handle a member's message; messages of another view are ignored."""
        if message.view != self.view.number or message.sender not in self._alive:
            return
        match message:
            case Suspect():
                self.lost(message.member, f"suspected by {message.sender}")
            case Isolate():
                self._isolate(self._alive[message.sender])
            case Exhausted():
                self._exhausted.add(message.sender)
            case Report():
                if message.sender not in self._reports:
                    self._reports[message.sender] = message
                    self._ask_sinks()
            case CommittedReply():
                self._replies[message.sender] = message
                self._finish_census()

    def _isolate(self, feeder: Member) -> None:
        slot = ALONE, feeder.index
        if slot not in self._wanted:
            peers = (member for member in self._wanted.values() if member.kind == PEER)
            roles = dict.fromkeys(role for peer in peers for role in peer.roles)
            self._spawn(Member(*slot, self._first_incarnation, tuple(roles)))

    def _is_complete(self) -> bool:
        """Return whether all members have joined, except for peers without room whose roles others host."""
        missing = [member for name, member in self._starting.items() if name not in self._waiting]
        needed = {member.slot for member in self._wanted.values() if member.kind in (FEEDER, SINK)}
        present = {member.slot for member in self._alive.values()}
        roles = {role for member in self._wanted.values() for role in member.roles}
        hosted = {role for member in self._alive.values() for role in member.roles}
        return not missing and needed <= present and roles <= hosted

    def _open_view(self) -> None:
        members = tuple(sorted(self._alive.values(), key=lambda member: member.slot))
        self.view = View(self.view.number + 1, members, self.view.partitions, self.view.shards)
        self._started = self._in_census = True
        self._reports, self._replies = {}, {}
        self._exhausted = set()
        self._effects += [Send(member.name, Prepare(self.view)) for member in members]
        self._ask_sinks()  # proceeds at once if the view has no members

    def _ask_sinks(self) -> None:
        if len(self._reports) < len(self.view.members):
            return
        ids = reported_ids(self._reports.values())
        fresh = any(report.fresh for report in self._reports.values())
        for sink in self.view.of(SINK):
            mine = [id for id in ids if self.view.sink(id) == sink.name]
            self._effects.append(Send(sink.name, CommittedQuery(self.view.number, mine, fresh)))
        self._finish_census()

    def _finish_census(self) -> None:
        if not self._in_census or len(self._reports) < len(self.view.members):
            return
        if len(self._replies) < len(self.view.of(SINK)):
            return
        self._in_census = False
        verdicts = judge(self.view, self._reports, self._replies, journal=self._journal)
        self._effects += [Send(name, resolve) for name, resolve in verdicts.items()]
        self._replace_missing()

    def _replace_missing(self) -> None:
        present = {member.slot for member in (*self._alive.values(), *self._starting.values())}
        for slot, last in list(self._wanted.items()):
            if slot not in present:
                self._spawn(_next(last))

    def _spawn(self, member: Member) -> None:
        self._wanted[member.slot] = member
        self._starting[member.name] = member
        self._effects.append(Spawn(member))


def _next(member: Member) -> Member:
    return Member(member.kind, member.index, member.incarnation + 1, member.roles)
