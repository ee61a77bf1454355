"""A peer's meter of one service: calls take from what was granted, and are settled when they are over.

While nothing is limited a call costs a comparison. Else it reserves what it may take before it begins, and
waits in its agent's queue while the grant does not cover it; agents take turns. What is granted and not
needed is given back, so that others can have it.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from itertools import count, islice

from peerloom.services.llm.usage.amounts import ANYTHING, NOTHING, Amount, Demand, QuotaGrant, UsageReport

AHEAD_SECONDS = 0.5
"""So long a grant is to last where there is enough, so that calls need not wait for the next one."""

SAMPLE = 8
"""Calls of each queue that are looked at to know what one takes."""

Waiter = tuple[Amount, "asyncio.Future[None]"]


class ServiceLimiter:
    """Of one service, in one peer's event loop.

    Args:
        service: its name.
        limited: whether anything is limited from the start; else not until a grant says so.
        urgent: called when there is something that the driver should know at once.
        clock: seconds.
    """

    def __init__(
        self, service: str, *, limited: bool, urgent: Callable[[], None], clock: Callable[[], float]
    ) -> None:
        self.service = service
        self.limited = limited
        self.down = ""
        self.denied = False
        self.idle = 0
        """Calls that neither are under way nor wait for a grant, but for the service or their next try."""
        self._urgent = urgent
        self._clock = clock
        self._granted = NOTHING if limited else ANYTHING
        self._slots = 0.0 if limited else math.inf
        self._leased_until = self._starts = math.inf
        self._grant = -1
        self._spent = self._reserved = self._returned = NOTHING
        self._outstanding = 0
        self._queues: dict[str, deque[Waiter]] = {}
        self._turns: deque[str] = deque()  # agents with a queue, the next one first
        self._begun: dict[str, tuple[int, Amount]] = {}  # since the last reading, by agent
        self._attempts = self._refused = 0
        self._retry_at = 0.0
        self._refusal = ""
        self._refusal_seconds = 0.0
        self._paused: dict[int, float] = {}  # when each refused call that holds nothing tries again
        self._answered = self._read_answered = 0
        self._seconds = 0.0
        self._completion = 0.0
        self._number = 0
        self._keys = count()
        self._read_at = clock()

    @property
    def waiting(self) -> int:
        """Calls that wait for a grant."""
        return sum(map(len, self._queues.values()))

    @property
    def active(self) -> bool:
        """Whether the driver should hear of it now and then."""
        return self.limited and (self._outstanding > 0 or bool(self._turns) or self._spare(()) != NOTHING)

    @property
    def throttled(self) -> bool:
        """Whether the driver decides when attempts may begin, so that calls need no backoff of their own."""
        return self._starts < math.inf

    @property
    def news(self) -> bool:
        """Whether calls are under way, or were since the last reading."""
        return self._outstanding > 0 or self._answered != self._read_answered

    def begin(self) -> None:
        """A call begins while nothing is limited."""
        if not self._outstanding:
            self._urgent()
        self._outstanding += 1
        self._attempts += 1

    def try_take(self, need: Amount | None) -> bool:
        """As `take` and `begin`, but only if that is possible at once; whether it was."""
        if need is None:
            self.begin()
        elif self._turns or not self._fits(need):
            return False
        else:
            self._reserve("", need)
        return True

    async def take(self, role: str, need: Amount, *, first: bool = False) -> None:
        """Reserve for a call that is about to begin; waits until it is covered and its turn has come.

        Args:
            role: whose call.
            need: the most it may use.
            first: go before the other calls of that role, since it has been refused before.
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
                self._leave(role, waiter)
            else:
                self.end(need, NOTHING)
            raise

    def end(self, need: Amount | None, took: Amount) -> None:
        """A call is over that had reserved `need`, if it had; it came to `took`.

        What it left is given back, not used here: a rate that was not used is gone after a while.
        """
        self._outstanding -= 1
        if need is not None:
            self._reserved = self._reserved.plus(need, -1.0)
            if self.limited:
                self._returned = self._returned.plus(need).plus(need.least(took), -1.0)
        if self.limited:
            self._spent = self._spent.plus(took)
            if self._turns:
                self._serve()
                if self._turns and not self._outstanding:
                    self._urgent()

    def answered(self, seconds: float, completion: int) -> None:
        """An attempt was answered, after so long, with so many tokens."""
        if not self._answered:
            self._urgent()  # that it answers at all is to be known if it refuses somebody later
        self._answered += 1
        self._seconds += seconds
        self._completion += completion

    def refused(self, retry_after: float, why: str, seconds: float) -> None:
        """Count an attempt that was refused for a limit.

        Args:
            retry_after: the wait that the provider asks for, in seconds; 0 if it named none.
            why: the refusal in words.
            seconds: how long it took to arrive.
        """
        self._refused += 1
        self._refusal_seconds = max(seconds, self._refusal_seconds + 0.1 * (seconds - self._refusal_seconds))
        self._retry_at = max(self._retry_at, self._clock() + retry_after)
        self._refusal = why
        self._urgent()

    @contextmanager
    def pause(self, seconds: float) -> Generator[None]:
        """Count a refused call that makes its next attempt in so many seconds, while it waits for it."""
        key = next(self._keys)
        self._paused[key] = self._clock() + seconds
        try:
            yield
        finally:
            del self._paused[key]

    def state(self, down: str, denied: bool = False) -> None:
        """The service answers nobody here, and why; or, empty, it does again."""
        if (down, denied) != (self.down, self.denied):
            self.down, self.denied = down, denied
            self._urgent()

    def hear(self, grant: QuotaGrant) -> None:
        """Take a grant in; an older one than the last is ignored."""
        if grant.number <= self._grant:
            return
        self._grant = grant.number
        self._granted, self._slots, self._starts = grant.granted, grant.slots, grant.starts
        self._leased_until = self._clock() + grant.lease
        self.limited = grant.limited
        self._serve()

    def read(self, *, last: bool = False) -> UsageReport:
        """What the driver is told; what is left over and not needed is given back with it."""
        now = self._clock()
        seconds = max(now - self._read_at, 1e-3)
        wants = self._wants(seconds)
        self._give_back(wants)
        self._begun, self._read_at, self._read_answered = {}, now, self._answered
        self._number += 1
        return UsageReport(
            service=self.service,
            number=self._number,
            grant=self._grant,
            spent=self._spent,
            reserved=self._reserved,
            returned=self._returned,
            outstanding=self._outstanding,
            attempts=self._attempts,
            refused=self._refused,
            retry_after=max(0.0, self._retry_at - now),
            refusal=self._refusal,
            refusal_seconds=self._refusal_seconds,
            paused=len(self._paused),
            next_attempt=max(0.0, min(self._paused.values(), default=now) - now),
            answered=self._answered,
            seconds=self._seconds,
            completion=self._completion,
            wants=wants,
            down=self.down,
            denied=self.denied,
            last=last,
        )

    def _left(self) -> Amount:
        """What is granted and not yet taken."""
        taken = self._spent.plus(self._reserved).plus(self._returned)
        return self._granted.plus(taken, -1.0)

    def _fits(self, need: Amount) -> bool:
        if self._outstanding >= self._slots or self._attempts >= self._starts:
            return False
        return self._clock() < self._leased_until and self._left().covers(need)

    def _reserve(self, role: str, need: Amount) -> None:
        if not self._outstanding:
            self._urgent()  # the driver has not asked while there was nothing to tell
        self._outstanding += 1
        self._attempts += 1
        self._reserved = self._reserved.plus(need)
        count, sum_ = self._begun.get(role, (0, NOTHING))
        self._begun[role] = (count + 1, sum_.plus(need))

    def _serve(self) -> None:
        """Let calls go, one of each agent after the other, as far as the grant goes.

        Whose turn it is is waited for: if smaller calls went past it, a large one would never be covered. But
        if nothing is under way here they may: the budget may have no more than that.
        """
        blocked = 0
        while blocked < len(self._turns):
            role = self._turns[blocked]
            queue = self._queues[role]
            need, ready = queue[0]
            if not ready.done():  # else it was cancelled, and is about to leave
                if not self._fits(need):
                    if self._outstanding:
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

    def _leave(self, role: str, waiter: Waiter) -> None:
        queue = self._queues.get(role)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
            if not queue:
                del self._queues[role]
                self._turns.remove(role)

    def _wants(self, seconds: float) -> list[Demand]:
        """Calls that wait, and those that come soon if it goes on as it did in the last `seconds`."""
        wants: list[Demand] = []
        for role in dict.fromkeys((*self._queues, *self._begun)):
            queue = self._queues.get(role, ())
            begun, sum_ = self._begun.get(role, (0, NOTHING))
            soon = math.ceil(begun * AHEAD_SECONDS / max(seconds, AHEAD_SECONDS / 4))
            for need, _ in islice(queue, SAMPLE):
                sum_ = sum_.plus(need)
            each = NOTHING.plus(sum_, 1.0 / (begun + min(len(queue), SAMPLE)))
            if queue:
                each = each.most(queue[0][0])
            wants.append(Demand(role, len(queue) + soon, len(queue), each))
        return wants

    def _give_back(self, wants: list[Demand]) -> None:
        """Return what is not needed; all of it if nobody can begin with it, and nothing comes free here."""
        stuck = bool(self._turns) and not self._outstanding
        self._returned = self._returned.plus(self._spare(() if stuck else wants))

    def _spare(self, wants: Iterable[Demand]) -> Amount:
        """What is left over when these have got theirs."""
        keep = NOTHING
        for want in wants:
            keep = keep.plus(want.each, want.count)
        spare = (have - kept for have, kept in zip(self._left(), keep, strict=True))
        return Amount(*(amount if 1e-9 < amount < math.inf else 0.0 for amount in spare))
