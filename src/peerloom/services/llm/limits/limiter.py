"""Limit a peer's calls of one service to the quota granted by the driver.

While nothing is limited a call costs one comparison, and nothing is reported. Otherwise it reserves its
estimated usage before it begins, and waits in the queue of its role while the quota does not cover it; roles
take turns. When the call ends, its reservation is settled. Quota that is not needed is returned.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from copy import copy
from itertools import count, islice

from peerloom.services.llm.usage.amounts import ANYTHING, NOTHING, Amount, Demand, QuotaGrant, UsageReport

AHEAD_SECONDS = 0.5
"""The time that a requested grant should last, so that calls do not wait for the next one."""

SAMPLE = 8
"""The number of calls of each queue from which the usage of a call is estimated."""

Waiter = tuple[Amount, "asyncio.Future[None]"]


class ServiceLimiter:
    """Limits the calls of one service in one peer's event loop.

    Args:
        service: the name of the service.
        limited: whether calls are limited from the start, rather than from the first grant with limits.
        urgent: called when a report should be sent to the driver at once.
        clock: returns seconds.
    """

    def __init__(
        self, service: str, *, limited: bool, urgent: Callable[[], None], clock: Callable[[], float]
    ) -> None:
        self.service = service
        self.limited = limited
        self._urgent = urgent
        self._clock = clock
        self._granted = NOTHING if limited else ANYTHING
        self._slots = 0.0 if limited else math.inf
        self._leased_until = self._starts = math.inf
        self._usage = UsageReport(service=service, number=0)  # the totals of the next report
        self._queues: dict[str, deque[Waiter]] = {}
        self._turns: deque[str] = deque()  # roles with a queue, the next one first
        self._begun: dict[str, tuple[int, Amount]] = {}  # since the last report, by role
        self._retry_at = 0.0
        self._paused: dict[int, float] = {}  # the time of the next attempt of each refused call
        self._keys = count()
        self._reported_at = clock()

    @property
    def waiting(self) -> int:
        """Calls that wait for a grant."""
        return sum(map(len, self._queues.values()))

    @property
    def active(self) -> bool:
        """Whether reports are to be sent regularly."""
        return self.limited and (
            self._usage.outstanding > 0 or bool(self._turns) or self._spare(()) != NOTHING
        )

    @property
    def throttled(self) -> bool:
        """Whether the driver decides when attempts may begin, so that calls need no backoff of their own."""
        return self._starts < math.inf

    @property
    def metered(self) -> bool:
        """Whether the driver needs reports: calls are limited, or one was refused."""
        return self.limited or self._usage.refused > 0

    def begin(self) -> None:
        """Begin a call while nothing is limited."""
        self._usage.outstanding += 1
        self._usage.attempts += 1

    async def take(self, role: str, need: Amount, *, first: bool = False) -> None:
        """Wait until the quota covers a call and its turn has come, and reserve its `need`.

        Args:
            role: the role of the calling agent.
            need: the maximum usage of the call.
            first: put the call before the others of its role, since it was refused before.
        """
        if not self._turns and self._fits(need):
            self._reserve(role, need)
            return
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = (need, ready)
        queue = self._queues.get(role)
        if queue is None:
            queue = self._queues[role] = deque()
            self._turns.append(role)
            self._urgent()
        if first:
            queue.appendleft(waiter)
        else:
            queue.append(waiter)
        try:
            await ready
        except asyncio.CancelledError:
            if ready.cancelled():
                self._remove(role, waiter)
            else:
                self.end(need, NOTHING)
            raise

    def end(self, need: Amount | None, used: Amount) -> None:
        """End a call and settle its usage against its reservation `need`, if it had one.

        The rest of the reservation is returned to the driver, not used here, since unused rates expire.
        """
        self._usage.outstanding -= 1
        if need is not None:
            self._usage.reserved = self._usage.reserved.plus(need, -1.0)
            if self.limited:
                self._usage.returned = self._usage.returned.plus(need).plus(need.least(used), -1.0)
        if self.limited:
            self._usage.spent = self._usage.spent.plus(used)
            if self._turns:
                self._serve()
                if self._turns and not self._usage.outstanding:
                    self._urgent()

    def answered(self, seconds: float, completion: int) -> None:
        """Count an answered attempt, with its duration and completion tokens."""
        self._usage.answered += 1
        self._usage.seconds += seconds
        self._usage.completion += completion

    def refused(self, retry_after: float, why: str, seconds: float) -> None:
        """Count an attempt that was refused for a limit.

        Args:
            retry_after: the wait that the provider asks for, in seconds; 0 for none.
            why: the message of the refusal.
            seconds: the time it took to arrive.
        """
        self._usage.refused += 1
        self._usage.refusal_seconds = max(
            seconds, self._usage.refusal_seconds + 0.1 * (seconds - self._usage.refusal_seconds)
        )
        self._retry_at = max(self._retry_at, self._clock() + retry_after)
        self._usage.refusal = why
        self._urgent()

    @contextmanager
    def pause(self, seconds: float) -> Generator[None]:
        """Count a refused call as paused inside the block; its next attempt is in `seconds`."""
        key = next(self._keys)
        self._paused[key] = self._clock() + seconds
        try:
            yield
        finally:
            del self._paused[key]

    def apply(self, grant: QuotaGrant) -> None:
        """Apply a grant, unless it is older than the last one."""
        if grant.number <= self._usage.grant:
            return
        self._usage.grant = grant.number
        self._granted, self._slots, self._starts = grant.granted, grant.slots, grant.starts
        self._leased_until = self._clock() + grant.lease
        if not self.limited:
            self.limited = True
            self._urgent()  # the driver does not know the outstanding calls yet
        self._serve()

    def report(self, *, last: bool = False) -> UsageReport:
        """Return a usage report for the driver, which also returns the quota that is not needed."""
        now = self._clock()
        seconds = max(now - self._reported_at, 1e-3)
        demands = self._demands(seconds)
        self._return_unneeded(demands)
        self._begun, self._reported_at = {}, now
        usage = self._usage
        usage.number += 1
        usage.retry_after = max(0.0, self._retry_at - now)
        usage.paused = len(self._paused)
        usage.next_attempt = max(0.0, min(self._paused.values(), default=now) - now)
        usage.demands, usage.last = demands, last
        return copy(usage)

    def _left(self) -> Amount:
        """Return the quota that is granted and not yet taken."""
        taken = self._usage.spent.plus(self._usage.reserved).plus(self._usage.returned)
        return self._granted.plus(taken, -1.0)

    def _fits(self, need: Amount) -> bool:
        if self._usage.outstanding >= self._slots or self._usage.attempts >= self._starts:
            return False
        return self._clock() < self._leased_until and self._left().covers(need)

    def _reserve(self, role: str, need: Amount) -> None:
        if not self._usage.outstanding:
            self._urgent()  # no reports were sent while no call was outstanding
        self._usage.outstanding += 1
        self._usage.attempts += 1
        self._usage.reserved = self._usage.reserved.plus(need)
        count, sum_ = self._begun.get(role, (0, NOTHING))
        self._begun[role] = (count + 1, sum_.plus(need))

    def _serve(self) -> None:
        """Start waiting calls, one of each role in turn, as far as the quota goes.

        While calls are outstanding, none overtakes the call whose turn it is, or a large call would never be
        covered. Otherwise smaller calls may overtake it: the remaining budget may not cover the large one.
        """
        blocked = 0
        while blocked < len(self._turns):
            role = self._turns[blocked]
            queue = self._queues[role]
            need, ready = queue[0]
            if not ready.done():  # otherwise it was cancelled, and is about to be removed
                if not self._fits(need):
                    if self._usage.outstanding:
                        return
                    blocked += 1
                    continue
                self._reserve(role, need)
                ready.set_result(None)
            queue.popleft()
            del self._turns[blocked]
            if queue:
                self._turns.append(role)
            else:
                del self._queues[role]

    def _remove(self, role: str, waiter: Waiter) -> None:
        queue = self._queues.get(role)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
            if not queue:
                del self._queues[role]
                self._turns.remove(role)

    def _demands(self, seconds: float) -> list[Demand]:
        """Return the demand for waiting calls, and for those expected soon from the last `seconds`."""
        demands: list[Demand] = []
        for role in dict.fromkeys((*self._queues, *self._begun)):
            queue = self._queues.get(role, ())
            begun, sum_ = self._begun.get(role, (0, NOTHING))
            soon = math.ceil(begun * AHEAD_SECONDS / max(seconds, AHEAD_SECONDS / 4))
            for need, _ in islice(queue, SAMPLE):
                sum_ = sum_.plus(need)
            each = NOTHING.plus(sum_, 1.0 / (begun + min(len(queue), SAMPLE)))
            if queue:
                each = each.most(queue[0][0])
            demands.append(Demand(role, len(queue) + soon, len(queue), each))
        return demands

    def _return_unneeded(self, demands: list[Demand]) -> None:
        """Return the quota that is not needed; all of it if no call can begin with it and none will end."""
        stuck = bool(self._turns) and not self._usage.outstanding
        self._usage.returned = self._usage.returned.plus(self._spare(() if stuck else demands))

    def _spare(self, demands: Iterable[Demand]) -> Amount:
        """Return the quota left once the demands are met."""
        needed = NOTHING
        for demand in demands:
            needed = needed.plus(demand.each, demand.count)
        spare = (have - need for have, need in zip(self._left(), needed, strict=True))
        return Amount(*(amount if 1e-9 < amount < math.inf else 0.0 for amount in spare))
