"""One service's limits, divided among the members that call it."""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

from peerloom.options import FREE, Count, Options, Positive
from peerloom.services.llm.limits.bucket import Bucket
from peerloom.services.llm.limits.congestion import Congestion, Load
from peerloom.services.llm.limits.member_quota import SLOT_SECONDS, Member
from peerloom.services.llm.limits.rates import Rates
from peerloom.services.llm.limits.sharing import by_role, max_min, whole
from peerloom.services.llm.limits.slowness import Slowness
from peerloom.services.llm.usage.amounts import ENDLESS, NOTHING, Amount, Demand, QuotaGrant, UsageReport
from peerloom.services.llm.usage.budget import Spending

LEASE_SECONDS = 0.25
"""What the buckets hold at most, in time; it is also how late a call may come to the provider."""
ROUNDS = 64
"""In so many steps wants are met, one of each agent after the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits(Options):
    """What a provider allows for one key, over all peers of the run; None is no limit."""

    section: ClassVar[str] = "llm.limits"

    requests_per_minute: Annotated[Positive | None, FREE] = None
    """Attempts, answered or not."""
    tokens_per_minute: Annotated[Positive | None, FREE] = None
    """Tokens of prompts and replies together."""
    concurrency: Annotated[Count | None, FREE] = None
    """Calls under way at once."""
    window_seconds: Annotated[Positive, FREE] = 60.0
    """The time over which the provider counts its minutes."""
    adaptive: Annotated[bool, FREE] = True
    """Go below the limits, or find some, when the provider refuses calls or slows down."""

    @property
    def bounded(self) -> bool:
        """Whether there is any limit."""
        return (self.requests_per_minute, self.tokens_per_minute, self.concurrency) != (None, None, None)

    def bucket(self, per_minute: float | None, now: float) -> Bucket | None:
        """For one of the rates; a little slower than the window allows, see `LEASE_SECONDS`."""
        if per_minute is None:
            return None
        in_window = per_minute * self.window_seconds / 60.0
        per_second = in_window / (self.window_seconds + 2 * LEASE_SECONDS)
        return Bucket(per_second, per_second * LEASE_SECONDS, now)


@dataclass(frozen=True, slots=True)
class Refusing:
    """A service that refuses calls, so that all of them wait.

    Args:
        service: its name.
        why: its latest refusal, in its own words.
        since: when that began, in seconds by the caller's clock.
        until: when the next attempt is made; it may be a moment ago.
        trying: attempts under way that may yet be refused.
    """

    service: str
    why: str
    since: float
    until: float
    trying: int


class ServiceQuota:
    """What the members may use of one service.

    Args:
        service: its name.
        limits: of it.
        endless: infinite for each resource of the budget that has no bound, 0 for the others.
        now: seconds.
    """

    def __init__(self, service: str, limits: Limits, endless: Amount, now: float) -> None:
        self._service = service
        self._limits = limits
        self._members: dict[str, Member] = {}
        self._rates = Rates(
            limits.bucket(limits.requests_per_minute, now),
            limits.bucket(limits.tokens_per_minute, now),
        )
        self._congestion = Congestion(now, declared=self._rates.bounded)
        self._slowness = Slowness()
        self._limited = limits.bounded or endless != Amount(*[ENDLESS] * len(endless))
        self._first = endless.least(self._rates.first)
        self._serving = 0
        self._served: dict[tuple[str, str], int] = {}  # when an agent, and its member, last had its turn
        self._refusal = ""
        self._refused_since: float | None = None  # an attempt was refused then, and none answered since
        self.answered = 0

    @property
    def outstanding(self) -> int:
        """Calls under way."""
        return sum(member.outstanding for member in self._members.values())

    @property
    def _load(self) -> Load:
        paused = sum(each.reading.paused for each in self._members.values() if each.reading is not None)
        return Load(self.outstanding, self.outstanding + self.waiting + paused)

    @property
    def limited(self) -> bool:
        """Whether anything is; else members tell what is under way only now and then."""
        return self._limited

    @property
    def waiting(self) -> int:
        """Calls that wait for a grant."""
        return sum(want.waiting for want in self._wants())

    @property
    def unmet(self) -> bool:
        """Whether calls wait that time alone will let go."""
        timed = self._rates.bounded or self._limits.concurrency is not None or self._congestion.limiting
        return self._limited and timed and self.waiting > 0

    def due(self, now: float) -> float:
        """Seconds until more may be granted, if `unmet`; 0 if that is not known."""
        return self._congestion.due(now)

    def refusing(self) -> Refusing | None:
        """Whether no call has been accepted for a while, and none is under way that may have been."""
        trying = self._congestion.trying
        if self._refused_since is None or self.outstanding > trying:
            return None
        paused = min((member.next_attempt for member in self._members.values()), default=math.inf)
        until = paused if paused < math.inf else self._congestion.closed_until
        return Refusing(self._service, self._refusal, self._refused_since, until, trying)

    def take(self, name: str, reading: UsageReport, now: float) -> bool:
        """Take a reading in; False if it is an old one."""
        member = self._members.get(name)
        if member is None:
            member = self._members[name] = Member(name, self._first)
        before = member.reading or UsageReport(service=self._service, number=-1)
        if reading.number <= before.number:
            return False
        member.take(reading, now)
        self._rates.take(name, member.granted, reading)
        self.answered += reading.answered - before.answered
        self._watch(before, reading, now)
        return True

    def committed(self, name: str) -> tuple[Amount, Amount]:
        """What a member has used, and what it holds beside; one that makes no call any more holds nothing."""
        member = self._members[name]
        reading = member.reading
        if reading is None:
            return NOTHING, NOTHING
        if reading.last:
            return reading.spent, reading.reserved
        granted = member.granted.plus(reading.returned, -1.0).plus(reading.spent, -1.0)
        finite = Amount(*(each if math.isfinite(each) else 0.0 for each in granted))
        return reading.spent, finite.most(reading.reserved)

    def lost(self, name: str) -> None:
        """A member has ended."""
        self._members.pop(name, None)
        self._rates.lost(name)

    def tell(self, name: str, urls: list[str]) -> None:
        """A member is to know that the replicas are elsewhere."""
        member = self._members.get(name)
        if member is None:
            member = self._members[name] = Member(name, self._first)
        member.moved, member.dirty = urls, True

    def grants(self, spending: Spending, now: float) -> Iterator[tuple[str, QuotaGrant]]:
        """What to grant to whom from now on."""
        if self._limited:
            self._congestion.advance(wanted=self.waiting > 0, load=self._load, now=now)
            self._divide_slots(now)
            self._divide_starts(now)
            if now >= self._congestion.closed_until:
                self._divide(spending, now)
        for member in self._members.values():
            member.renew(now)
            if member.dirty and (self._limited or member.moved is not None):
                yield member.name, self._grant(member, now)

    def stuck(self, left: Amount) -> bool:
        """Whether calls wait, and what is left of the budget covers none of them."""
        waiting = [want for want in self._wants() if want.waiting]
        return bool(waiting) and not any(left.covers(want.each._replace(requests=0.0)) for want in waiting)

    def away(self) -> tuple[str, bool] | None:
        """Why some member cannot reach the service, and whether that refuses whatever is asked."""
        for member in self._members.values():
            if member.reading is not None and member.reading.down:
                return member.reading.down, member.reading.denied
        return None

    def _grant(self, member: Member, now: float) -> QuotaGrant:
        moved, member.moved = member.moved, None
        slots = member.slots if self._limited else ENDLESS
        member.send(slots, now)
        return QuotaGrant(
            service=self._service,
            number=member.number,
            limited=self._limited,
            granted=member.granted,
            slots=slots,
            lease=SLOT_SECONDS if slots < ENDLESS else ENDLESS,
            starts=member.starts,
            moved=moved,
        )

    def _watch(self, before: UsageReport, after: UsageReport, now: float) -> None:
        """Find out how the provider takes it."""
        answered = after.answered - before.answered
        refused = after.refused - before.refused
        if answered:
            self._refused_since = None
        if refused and self._refused_since is None:
            self._refused_since = now  # an answer in the same reading may have come before
        if refused:
            self._refusal = after.refusal
        if not self._limits.adaptive:
            return
        congestion = self._congestion
        if answered and self._limits.bounded:
            seconds, tokens = after.seconds - before.seconds, after.completion - before.completion
            if self._slowness.add(answered, seconds, tokens):
                congestion.slow(self.outstanding, now)
        attempts = after.attempts - before.attempts
        if congestion.observe(
            attempts, refused, now, retry_after=after.retry_after, lag=after.refusal_seconds, load=self._load
        ):
            self._rates.refused()
        if congestion.limiting and not self._limited:
            self._limited = True
            for member in self._members.values():
                member.dirty = True

    def _divide_slots(self, now: float) -> None:
        """Divide the calls that may be under way; a member gets more only when others have let go."""
        most = min(self._limits.concurrency or ENDLESS, self._congestion.ceiling)
        if most == ENDLESS:
            for member in self._members.values():
                member.set_slots(ENDLESS)
            return
        total = max(1, math.floor(most))
        shares = whole(self._wished(total), total)
        for name, share in shares.items():
            if share <= self._members[name].slots:
                self._members[name].set_slots(float(share))
        free = total - sum(member.held(now) for member in self._members.values())
        for name, share in shares.items():
            member = self._members[name]
            more = math.floor(min(share - max(member.slots, member.held(now)), free))
            if more >= 1:
                free -= more
                member.set_slots(max(member.slots, member.held(now)) + more)
                self._serve(member)

    def _wished(self, total: int) -> dict[str, float]:
        """Fair shares of the slots; those with calls divide the rest evenly, so that they need not ask."""
        wanted: dict[tuple[str, str], float] = {}
        members = sorted(self._members.values(), key=lambda member: member.served)
        for member in members:
            counts = {want.role: float(want.count) for want in member.wants} or {"": 1.0}
            each = (member.outstanding + sum(want.waiting for want in member.wants)) / max(
                1.0, sum(counts.values())
            )
            for role, count in counts.items():
                wanted[role, member.name] = count * each
        shares = by_role(float(total), wanted)
        active = sum(member.calls > 0 for member in members)
        spare = (total - sum(shares.values())) / max(1, active)
        return {
            member.name: shares.get(member.name, 0.0) + (spare if member.calls else 0.0) for member in members
        }

    def _divide_starts(self, now: float) -> None:
        """Divide the attempts that may begin among those with calls to make, who waited longest first."""
        members = sorted(self._members.values(), key=lambda member: member.served)
        if self._congestion.rate == ENDLESS:
            for member in members:
                member.set_starts(ENDLESS)
            return
        for member in members:
            if member.starts == ENDLESS or now < self._congestion.closed_until:
                member.set_starts(float(member.attempts))
        needs = {
            member.name: sum(want.count for want in member.wants) - max(0.0, member.starts - member.attempts)
            for member in members
            if member.wants
        }
        needs = {name: need for name, need in needs.items() if need >= 1}
        there = self._congestion.take(math.floor(sum(needs.values())), now)
        for name, more in whole(max_min(float(there), needs), there).items():
            if more:
                member = self._members[name]
                member.set_starts(max(member.starts, float(member.attempts)) + more)
                self._serve(member)

    def _serve(self, member: Member) -> None:
        self._serving += 1
        member.served = self._serving

    def _divide(self, spending: Spending, now: float) -> None:
        """Meet wants out of what there is: first those of calls that wait, then those of calls to come."""
        largest = max((want.each.tokens for want in self._wants()), default=0.0)
        there = self._rates.there(largest, now)
        credit = {name: self._credit(member) for name, member in self._members.items()}
        left = self._meet(True, there, credit, spending)
        if left is not None:
            self._meet(False, left, credit, spending)

    def _meet(
        self, waiting: bool, there: Amount, credit: dict[str, Amount], spending: Spending
    ) -> Amount | None:
        """Grant calls, one of each agent after the other, and of its members one after the other.

        Whose turn it is keeps it until there is enough for one call, or large calls would never be covered;
        but it is passed over if the budget does not cover that. What is left then; None if it has to wait.
        """
        turns = self._in_turn(waiting)
        step = max(1, sum(count for _, queue in turns for _, count, _ in queue) // ROUNDS)
        while turns:
            role, queue = turns[0]
            name, count, each = queue[0]
            some = min(step, count)
            need = NOTHING.plus(each, some)
            if credit[name].covers(need):
                credit[name] = credit[name].plus(need, -1.0)
            elif there.covers(need) and spending.left.covers(need):
                there = there.plus(need, -1.0)
                self._give(name, need, spending)
            elif some > 1:
                step = 1
                continue
            elif not spending.left.covers(need):
                some = count
            else:
                return None
            self._serving += 1
            self._served[role, ""] = self._served[role, name] = self._serving
            turns.popleft()
            queue.popleft()
            if count > some:
                queue.append((name, count - some, each))
            if queue:
                turns.append((role, queue))
        return there

    def _in_turn(self, waiting: bool) -> "deque[tuple[str, deque[tuple[str, int, Amount]]]]":
        """Wanted calls by agent: member, how many, what one may take; who was served last comes last."""
        queues: dict[str, list[tuple[str, int, Amount]]] = {}
        for name, member in self._members.items():
            for want in member.wants:
                count = want.waiting if waiting else want.count - want.waiting
                if count > 0:
                    queues.setdefault(want.role, []).append((name, count, want.each))
        last = self._served
        return deque(
            (role, deque(sorted(queues[role], key=lambda each: last.get((role, each[0]), 0))))
            for role in sorted(queues, key=lambda role: last.get((role, ""), 0))
        )

    def _give(self, name: str, amount: Amount, spending: Spending) -> None:
        member = self._members[name]
        member.granted = member.granted.plus(amount)
        member.dirty = True
        assert member.reading is not None  # it was that which wants something
        self._rates.take(name, member.granted, member.reading)
        if spending.bounded:
            spending.note(self._service, name, *self.committed(name))

    def _credit(self, member: Member) -> Amount:
        """What a member has been granted and not taken yet, as far as it has said."""
        reading = member.reading
        if reading is None:
            return member.granted
        taken = reading.spent.plus(reading.reserved).plus(reading.returned)
        return member.granted.plus(taken, -1.0)

    def _wants(self) -> Iterator[Demand]:
        return (want for member in self._members.values() for want in member.wants)
