"""The coordinator: one per run; opens a view on every death or join, and runs its census.

A census has two questions: to all members what they hold, then to the sinks which of those ids they
reply. Any change of membership starts it over under the next number. Replacements for lost members are
asked for only when a census without them is over, so that a sink that was merely slow is fenced, its
acknowledgements refused by every feeder, before another process takes its shard over.
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
    """Make sure that this member is dead; `why` it is to be."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start this member; `joined` or `lost` is the answer."""

    member: Member


Effect = Send | Kill | Spawn


class Coordinator:
    """State of the coordinator.

    Args:
        slots: the members that are wanted, as their first incarnations.
        partitions: number of feeders.
        shards: number of sinks.
        journal: whether what a member had done can be read again after its loss.
        last_view: the number of the last view that there may reply been, in last_view sessions of the run.
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
        self._partitions = partitions
        self._shards = shards
        self._journal = journal
        self._alive: dict[str, Member] = {}
        self._starting: dict[str, Member] = {}
        self._waiting: set[str] = set()  # of these, those for which there is no room at present
        self._reports: dict[str, Report] = {}
        self._replies: dict[str, CommittedReply] = {}
        self._exhausted: set[str] = set()
        self._in_census = False
        self._started = False  # whether the first view was opened
        self._effects: list[Effect] = []
        self.view = View(last_view, (), partitions, shards)

    def start(self) -> None:
        """DoneQuery for all members; the first view opens when they reply all joined."""
        for member in self._wanted.values():
            self._spawn(member)

    def effects(self) -> list[Effect]:
        """What is to be done now, in order; each once."""
        effects, self._effects = self._effects, []
        return effects

    @property
    def settled(self) -> bool:
        """Whether every wanted member for which there is room takes part, and no census is under way."""
        return self._started and not self._in_census and self._is_complete()

    @property
    def finished(self) -> bool:
        """Whether every feeder, in the present view, has nothing left to do."""
        feeders = [member for member in self.view.members if member.kind == FEEDER]
        return (
            not self._in_census
            and len(feeders) == self._partitions
            and all(member.name in self._exhausted for member in feeders)
        )

    def joined(self, name: str) -> None:
        """A member that was asked for is up."""
        member = self._starting.pop(name, None)
        if member is None:
            self._effects.append(Kill(name, "it is no longer wanted"))
            return
        self._waiting.discard(name)
        self._alive[name] = member
        if self._started or self._is_complete():
            self._open_view()

    def no_room(self, name: str) -> None:
        """There is no room for a member at present: the run begins without it, if every role has a host."""
        if name in self._starting and name not in self._waiting:
            self._waiting.add(name)
            if not self._started and self._is_complete():
                self._open_view()

    def lost(self, name: str, why: str = "") -> None:
        """A member is dead, or is to be treated as dead: it is replaced. Saying it twice does no harm."""
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
        """Look where everything is, with the members there are."""
        if not self._in_census and self._started:
            self._open_view()

    def receive(self, message: ToCoordinator) -> None:
        """Hear a member; what it said in another view is ignored."""
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
        """Whether all members are there but some for which there is no room and which others stand in for."""
        missing = [member for name, member in self._starting.items() if name not in self._waiting]
        needed = {member.slot for member in self._wanted.values() if member.kind in (FEEDER, SINK)}
        present = {member.slot for member in self._alive.values()}
        roles = {role for member in self._wanted.values() for role in member.roles}
        hosted = {role for member in self._alive.values() for role in member.roles}
        return not missing and needed <= present and roles <= hosted

    def _open_view(self) -> None:
        members = tuple(sorted(self._alive.values(), key=lambda member: member.slot))
        self.view = View(self.view.number + 1, members, self._partitions, self._shards)
        self._started = self._in_census = True
        self._reports, self._replies = {}, {}
        self._exhausted = set()
        self._effects += [Send(member.name, Prepare(self.view)) for member in members]
        self._ask_sinks()  # at once if nobody is left: then there is nobody to wait for

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
