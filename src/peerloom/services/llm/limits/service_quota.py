"""Divide the limits of one service among the members that call it."""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

from peerloom.options import FREE, Count, Options, Positive
from peerloom.services.llm.limits.congestion import Congestion, Load
from peerloom.services.llm.limits.member_quota import SLOT_SECONDS, MemberQuota
from peerloom.services.llm.limits.rates import Bucket, RateBuckets
from peerloom.services.llm.limits.samples import Slowness
from peerloom.services.llm.limits.sharing import by_role, max_min, rounded
from peerloom.services.llm.usage.amounts import (
    ANYTHING,
    ENDLESS,
    NOTHING,
    Amount,
    Demand,
    QuotaGrant,
    UsageReport,
)
from peerloom.services.llm.usage.budget import Spending

LEASE_SECONDS = 0.25
"""The time whose rate the buckets hold; a call may reach the provider this much after it was granted."""
GATHER_SECONDS = 0.25
"""The time after the first refusal for members to report their calls, before the load is reduced."""
ROUNDS = 64
"""The number of rounds in which demands are met, one role after the other in each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits(Options):
    """The limits of a provider for one key, over all peers of the run; None for no limit."""

    section: ClassVar[str] = "llm.limits"

    requests_per_minute: Annotated[Positive | None, FREE] = None
    """Attempts, answered or not."""
    tokens_per_minute: Annotated[Positive | None, FREE] = None
    """Tokens of prompts and replies together."""
    concurrency: Annotated[Count | None, FREE] = None
    """Concurrent calls."""
    window_seconds: Annotated[Positive, FREE] = 60.0
    """The window over which the provider counts requests and tokens."""
    adaptive: Annotated[bool, FREE] = True
    """Reduce the load when the provider refuses calls or slows down, with or without declared limits."""

    @property
    def bounded(self) -> bool:
        """Whether there is any limit."""
        return (self.requests_per_minute, self.tokens_per_minute, self.concurrency) != (None, None, None)

    def buckets(self, now: float) -> dict[str, Bucket]:
        """Return the bucket of each limited rate, a little slower than its window; see `LEASE_SECONDS`."""
        buckets: dict[str, Bucket] = {}
        for name, rate in (("requests", self.requests_per_minute), ("tokens", self.tokens_per_minute)):
            if rate is not None:
                per_second = rate * self.window_seconds / 60.0 / (self.window_seconds + 2 * LEASE_SECONDS)
                buckets[name] = Bucket(per_second, per_second * LEASE_SECONDS, now)
        return buckets


@dataclass(frozen=True, slots=True)
class Refusing:
    """A service that refuses calls, so that all of them wait.

    Args:
        service: the name of the service.
        why: the message of its latest refusal.
        since: the time of the first refusal, in seconds by the caller's clock.
        until: the time of the next attempt, which may be in the past.
        trying: the outstanding attempts that may still be refused.
    """

    service: str
    why: str
    since: float
    until: float
    trying: int


class ServiceQuota:
    """The quotas of all members for one service.

    Args:
        service: the name of the service.
        limits: the limits of the service.
        unlimited: an amount that is infinite for each resource without a budget and 0 for the others.
        now: the current time.
    """

    def __init__(self, service: str, limits: Limits, unlimited: Amount, now: float) -> None:
        self._service = service
        self._limits = limits
        self._members: dict[str, MemberQuota] = {}
        self._rates = RateBuckets(limits.buckets(now))
        self._congestion = Congestion(now, declared=self._rates.bounded)
        self._slowness = Slowness()
        self._limited = limits.bounded or unlimited != ANYTHING
        self._gathering_until = -math.inf
        self._initial = unlimited.least(self._rates.unlimited)
        self._turn = 0
        self._served: dict[tuple[str, str], int] = {}  # the last turn of each role and role's member
        self._refusal = ""
        self._refused_since: float | None = None  # the first refusal since the last answer

    @property
    def outstanding(self) -> int:
        """The outstanding calls."""
        return sum(member.report.outstanding for member in self._members.values())

    def _load(self, now: float) -> Load:
        """Return the calls of all members; none while members gather reports, so that nothing is limited."""
        if now < self._gathering_until and not all(each.reported for each in self._members.values()):
            return Load(0, 0)
        paused = sum(each.report.paused for each in self._members.values())
        return Load(self.outstanding, self.outstanding + self.waiting + paused)

    @property
    def limited(self) -> bool:
        """Whether calls are limited; otherwise members send no reports."""
        return self._limited

    @property
    def waiting(self) -> int:
        """The calls that wait for a grant."""
        return sum(demand.waiting for demand in self._demands())

    @property
    def unmet(self) -> bool:
        """Whether calls wait for quota that becomes available with time."""
        timed = self._rates.bounded or self._limits.concurrency is not None or self._congestion.limiting
        return self._limited and timed and self.waiting > 0

    def due(self, now: float) -> float:
        """Return the seconds until more may be granted, if `unmet`; 0 if unknown."""
        return self._congestion.due(now)

    def refusing(self) -> Refusing | None:
        """Return the refusals if no call has been accepted since, and no outstanding call may have been."""
        trying = self._congestion.pending
        if self._refused_since is None or self.outstanding > trying:
            return None
        paused = min((member.next_attempt for member in self._members.values()), default=math.inf)
        until = paused if paused < math.inf else self._congestion.closed_until
        return Refusing(self._service, self._refusal, self._refused_since, until, trying)

    def take(self, name: str, report: UsageReport, now: float) -> bool:
        """Take in the report of a member; return False if it is an old one."""
        member = self.joined(name, now)
        before, since = member.report, member.reported_at
        if report.number <= before.number:
            return False
        member.update(report, now)
        self._rates.take(name, member.granted, report)
        self._observe(before, report, since, now)
        return True

    def joined(self, name: str, now: float) -> MemberQuota:
        """Return the quota of a member, a new one if it is unknown."""
        member = self._members.get(name)
        if member is None:
            report = UsageReport(service=self._service, number=-1)
            member = self._members[name] = MemberQuota(name, report, now, self._initial)
        return member

    def committed(self, name: str) -> tuple[Amount, Amount]:
        """Return the amount used by a member, and the amount it holds in addition."""
        member = self._members[name]
        report = member.report
        if report.last:
            return report.spent, report.reserved
        granted = member.granted.plus(report.returned, -1.0).plus(report.spent, -1.0)
        finite = Amount(*(each if math.isfinite(each) else 0.0 for each in granted))
        return report.spent, finite.most(report.reserved)

    def lost(self, name: str) -> None:
        """Remove a member that has ended."""
        self._members.pop(name, None)
        self._rates.remove(name)

    def grants(self, spending: Spending, now: float) -> Iterator[tuple[str, QuotaGrant]]:
        """Divide the available quota, and yield each member that gets a new grant."""
        if self._limited:
            self._congestion.advance(wanted=self.waiting > 0, load=self._load(now), now=now)
            self._divide_slots(now)
            self._divide_starts(now)
            if now >= self._congestion.closed_until:
                self._divide(spending, now)
        for member in self._members.values():
            member.renew(now)
            if member.dirty and self._limited:
                yield member.name, self._grant(member, now)

    def stuck(self, left: Amount) -> bool:
        """Return whether calls wait, and the rest of the budget covers none of them."""
        waiting = [demand for demand in self._demands() if demand.waiting]
        return bool(waiting) and not any(left.covers(each.each._replace(requests=0.0)) for each in waiting)

    def _grant(self, member: MemberQuota, now: float) -> QuotaGrant:
        slots = member.slots
        member.send(slots, now)
        return QuotaGrant(
            service=self._service,
            number=member.number,
            granted=member.granted,
            slots=slots,
            lease=SLOT_SECONDS if slots < ENDLESS else ENDLESS,
            starts=member.starts,
        )

    def _observe(self, before: UsageReport, after: UsageReport, since: float, now: float) -> None:
        """Update the congestion control from the difference between two reports."""
        answered = after.answered - before.answered
        refused = after.refused - before.refused
        if answered:
            self._refused_since = None
        if refused:
            self._refusal = after.refusal
            if self._refused_since is None:
                self._refused_since = now  # an answer in the same report may have come before
            if not self._limited:  # so all members report from now on
                self._limited, self._gathering_until = True, now + GATHER_SECONDS
        if not self._limits.adaptive:
            return
        congestion = self._congestion
        if answered and self._limits.bounded:
            seconds, tokens = after.seconds - before.seconds, after.completion - before.completion
            if self._slowness.add(answered, seconds, tokens):
                congestion.slow(self.outstanding, now)
        attempts = after.attempts - before.attempts
        if before.number < 0:  # the first report: most attempts were made and answered long ago
            earlier = max(0, attempts - after.outstanding - refused)
            congestion.accepted(earlier, since, now)
            attempts -= earlier
        if congestion.observe(
            attempts,
            refused,
            now,
            retry_after=after.retry_after,
            lag=after.refusal_seconds,
            load=self._load(now),
        ):
            self._rates.refused()

    def _divide_slots(self, now: float) -> None:
        """Divide the slots; a member gets more only once others have released theirs."""
        bound = min(self._limits.concurrency or ENDLESS, self._congestion.ceiling)
        if bound == ENDLESS:
            for member in self._members.values():
                member.set_slots(ENDLESS)
            return
        total = max(1, math.floor(bound))
        shares = rounded(self._fair_slots(total), total)
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

    def _fair_slots(self, total: int) -> dict[str, float]:
        """Return fair shares of the slots; members with calls divide the rest, as spare slots."""
        wanted: dict[tuple[str, str], float] = {}
        members = sorted(self._members.values(), key=lambda member: member.served)
        for member in members:
            counts = {each.role: float(each.count) for each in member.report.demands} or {"": 1.0}
            current = member.report.outstanding + sum(each.waiting for each in member.report.demands)
            each = current / max(1.0, sum(counts.values()))
            for role, count in counts.items():
                wanted[role, member.name] = count * each
        shares = by_role(float(total), wanted)
        active = sum(member.calls > 0 for member in members)
        spare = (total - sum(shares.values())) / max(1, active)
        return {each.name: shares.get(each.name, 0.0) + (spare if each.calls else 0.0) for each in members}

    def _divide_starts(self, now: float) -> None:
        """Divide the attempts that may begin among members with calls, those that waited longest first."""
        members = sorted(self._members.values(), key=lambda member: member.served)
        if self._congestion.rate == ENDLESS:
            for member in members:
                member.set_starts(ENDLESS)
            return
        for member in members:
            if member.starts == ENDLESS or now < self._congestion.closed_until:
                member.set_starts(float(member.report.attempts))
        needs = {
            member.name: sum(each.count for each in member.report.demands)
            - max(0.0, member.starts - member.report.attempts)
            for member in members
            if member.report.demands
        }
        needs = {name: need for name, need in needs.items() if need >= 1}
        available = self._congestion.take(math.floor(sum(needs.values())), now)
        for name, more in rounded(max_min(float(available), needs), available).items():
            if more:
                member = self._members[name]
                member.set_starts(max(member.starts, float(member.report.attempts)) + more)
                self._serve(member)

    def _serve(self, member: MemberQuota) -> None:
        self._turn += 1
        member.served = self._turn

    def _divide(self, spending: Spending, now: float) -> None:
        """Meet demands from the available amounts: first of waiting calls, then of expected ones."""
        largest = max((demand.each.tokens for demand in self._demands()), default=0.0)
        available = self._rates.available(Amount(requests=1.0, tokens=largest), now)
        credit = {name: self._credit(member) for name, member in self._members.items()}
        left = self._meet(True, available, credit, spending)
        if left is not None:
            self._meet(False, left, credit, spending)

    def _meet(
        self, waiting: bool, available: Amount, credit: dict[str, Amount], spending: Spending
    ) -> Amount | None:
        """Grant calls of one role after the other, and of one member of the role after the other.

        A role keeps its turn until one of its calls is covered, or large calls would never be covered; but it
        is skipped if the budget does not cover the call. Return the rest; None if a role has to wait.
        """
        turns = self._turns(waiting)
        step = max(1, sum(count for _, queue in turns for _, count, _ in queue) // ROUNDS)
        while turns:
            role, queue = turns[0]
            name, count, each = queue[0]
            some = min(step, count)
            need = NOTHING.plus(each, some)
            if credit[name].covers(need):
                credit[name] = credit[name].plus(need, -1.0)
            elif available.covers(need) and spending.left.covers(need):
                available = available.plus(need, -1.0)
                self._add(name, need, spending)
            elif some > 1:
                step = 1
                continue
            elif not spending.left.covers(need):
                some = count
            else:
                return None
            self._turn += 1
            self._served[role, ""] = self._served[role, name] = self._turn
            turns.popleft()
            queue.popleft()
            if count > some:
                queue.append((name, count - some, each))
            if queue:
                turns.append((role, queue))
        return available

    def _turns(self, waiting: bool) -> "deque[tuple[str, deque[tuple[str, int, Amount]]]]":
        """Return the demands by role, as member, count and usage of each call; the last served come last."""
        queues: dict[str, list[tuple[str, int, Amount]]] = {}
        for name, member in self._members.items():
            for demand in member.report.demands:
                count = demand.waiting if waiting else demand.count - demand.waiting
                if count > 0:
                    queues.setdefault(demand.role, []).append((name, count, demand.each))
        last = self._served
        return deque(
            (role, deque(sorted(queues[role], key=lambda each: last.get((role, each[0]), 0))))
            for role in sorted(queues, key=lambda role: last.get((role, ""), 0))
        )

    def _add(self, name: str, amount: Amount, spending: Spending) -> None:
        member = self._members[name]
        member.granted = member.granted.plus(amount)
        member.dirty = True
        self._rates.take(name, member.granted, member.report)
        if spending.bounded:
            spending.record(self._service, name, *self.committed(name))

    def _credit(self, member: MemberQuota) -> Amount:
        """Return the amount that a member was granted and has not taken, as of its latest report."""
        report = member.report
        taken = report.spent.plus(report.reserved).plus(report.returned)
        return member.granted.plus(taken, -1.0)

    def _demands(self) -> Iterator[Demand]:
        return (demand for member in self._members.values() for demand in member.report.demands)
