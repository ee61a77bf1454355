"""How fast a provider lets itself be asked, found out by asking: additive increase, multiplicative decrease.

Below the limits that the user gave, or without any, refusals (429) cut what is used: of the rates, if there
are some, else of the calls under way. If the provider says how long to wait, and that is long, it counts over
a window: then what was used on average, the waiting included, is what it allows. Else a tenth less is tried.
A provider that answers much slower than it did is given less too, unless that does not help. All grows again,
the faster the longer nothing is refused. A refusal now and then among many answers says nothing.
"""

import math

CUT = 0.9
CUT_HELD = 0.97
GROWTH_PER_SECOND = 0.001
LEAST_CALLS = 10.0  # a lower ceiling grows as one of so many calls
DOUBLED_AFTER_SECONDS = 30.0  # without a refusal, growth doubles
FREE_AFTER_SECONDS = 120.0
SLOW = 3.0  # times what it was
SPORADIC = 0.03  # of all attempts; fewer refusals cost less than being slower
AVERAGE_SECONDS = 60.0
AGAIN_SECONDS = 2.0  # refused so soon after a wait, that was too short
LEAST_MORE_SECONDS, MOST_MORE_SECONDS = 0.5, 8.0  # and the next one is longer by this, which doubles
LEAST_FACTOR = 0.05
_RECENT = 200  # attempts that the share of refusals is taken of
_SAMPLE = 100  # answers that make a mean
_OVERHEAD = 50  # tokens that a call takes the time of beside those it writes


class Pace:
    """Of one service, over all peers. Times in seconds; the clock is the caller's.

    Args:
        rates: whether there are rates to go below; else fewer calls are under way.
        watch_slowness: give less to a provider that answers slower.
        now: seconds.

    Attributes:
        ceiling: calls that may be under way.
        factor: the part of the allowed rate that is used.
    """

    def __init__(self, *, rates: bool, watch_slowness: bool, now: float) -> None:
        self.ceiling = math.inf
        self.factor = 1.0
        self._rates = rates
        self._watch_slowness = watch_slowness
        self._cut_at = -math.inf
        self._held_until = -math.inf
        self._more = 0.0
        self._average = math.nan  # of what was used: of the rate, or calls under way
        self._began = self._passed = now
        self._latency = 1.0
        self._best = math.inf
        self._answers = 0
        self._seconds = 0.0
        self._tokens = 0.0
        self._recent = 0.0
        self._refused = 0.0

    def answered(self, answers: int, seconds: float, tokens: float, outstanding: int, now: float) -> None:
        """So many calls more were answered, in so many seconds, with so many tokens, all together."""
        self._count(answers, 0)
        self._answers += answers
        self._seconds += seconds
        self._tokens += tokens
        if self._answers < _SAMPLE:
            return
        self._latency = self._seconds / self._answers
        slowness = self._seconds / (self._tokens + self._answers * _OVERHEAD)
        self._answers, self._seconds, self._tokens = 0, 0.0, 0.0
        self._best = min(self._best * 1.02, slowness)
        if self._watch_slowness and slowness > SLOW * self._best and self._may_cut(now):
            self._cut_to(CUT * self._used(outstanding), now)
            self._best /= CUT * CUT  # if less does not help, it is slow for other reasons

    def refused(self, outstanding: int, now: float, attempts: int = 1, hold: float = 0.0) -> float:
        """So many attempts were refused while so many calls were under way, and asked to wait for `hold`.

        Returns when calls may begin again: later, if it is not the first time that it was too early.
        """
        self._count(attempts, attempts)
        self.pass_time(outstanding, now)
        if now >= self._held_until:
            again = not self._sporadic and now - self._held_until < max(self._latency, AGAIN_SECONDS)
            self._more = min(MOST_MORE_SECONDS, 2.0 * self._more or LEAST_MORE_SECONDS) if again else 0.0
        self._held_until = max(self._held_until, now + hold + (self._more if hold else 0.0))
        self._cut_for(outstanding, now, hold)
        return self._held_until

    def _cut_for(self, outstanding: int, now: float, hold: float) -> None:
        if self._sporadic:
            return
        if hold > (0.0 if self._rates else self._latency):
            seconds = min(AVERAGE_SECONDS, now - self._began)
            self._cut_to(CUT_HELD * self._average * seconds / (seconds + hold), now)
        elif self._may_cut(now):
            self._cut_to(CUT * self._used(outstanding), now)

    def pass_time(self, outstanding: int, now: float) -> None:
        """Time has passed; the ceiling grows only while it is reached."""
        seconds, self._passed = max(0.0, now - self._passed), now
        used = (self.factor if now >= self._held_until else 0.0) if self._rates else float(outstanding)
        if math.isnan(self._average):
            self._average = used
        elif seconds:
            part = min(1.0, seconds / min(AVERAGE_SECONDS, now - self._began))
            self._average += part * (used - self._average)
        calm = now - max(self._cut_at, self._held_until)
        if calm > self._latency:
            self._grow(outstanding, seconds, calm)

    def _grow(self, outstanding: int, seconds: float, calm: float) -> None:
        growth = GROWTH_PER_SECOND * 2.0 ** min(8.0, calm / DOUBLED_AFTER_SECONDS)
        self.factor = min(1.0, self.factor * (1.0 + growth * seconds))
        if outstanding >= min(0.9 * self.ceiling, self.ceiling - 1.0):
            self.ceiling += max(LEAST_CALLS * growth, growth * self.ceiling) * seconds
        elif calm > FREE_AFTER_SECONDS and outstanding < 0.5 * self.ceiling:
            self.ceiling = math.inf

    @property
    def _sporadic(self) -> bool:
        """Whether so few of the latest attempts were refused that it says nothing."""
        return self._refused <= SPORADIC * max(self._recent, 1.0 / SPORADIC)

    def _count(self, attempts: int, refused: int) -> None:
        """Older attempts count less and less."""
        kept = max(0.0, 1.0 - attempts / _RECENT)
        self._recent = self._recent * kept + attempts
        self._refused = self._refused * kept + refused

    def _used(self, outstanding: int) -> float:
        return self.factor if self._rates else min(self.ceiling, max(outstanding, 1))

    def _may_cut(self, now: float) -> bool:
        return now - self._cut_at >= max(self._latency, 0.2)

    def _cut_to(self, most: float, now: float) -> None:
        self._cut_at = now
        if self._rates:
            self.factor = max(LEAST_FACTOR, min(self.factor, most))
        else:
            self.ceiling = max(1.0, min(self.ceiling, most))
