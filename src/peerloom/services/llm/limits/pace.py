"""How fast a provider lets itself be asked, found out by asking: additive increase, multiplicative decrease.

Below the limits that the user gave, or without any, a refusal (429) cuts the calls under way and the rate by
a third, at most once in the time that a call takes; after that both grow again, slowly. A provider that
answers much slower than it did is given less in the same way. A refusal now and then among many answers says
nothing. Where there was no limit and nothing is refused for a while, there is none again.
"""

import math

CUT = 0.7
CUT_SLOW = 0.85
GROWTH_PER_SECOND = 0.02
LEAST_GROWTH_PER_SECOND = 0.5  # calls under way
FREE_AFTER_SECONDS = 120.0
SLOW = 3.0  # times what it was
SPORADIC = 0.03  # of all attempts; fewer refusals cost less than being slower
_RECENT = 200  # attempts that the share of refusals is taken of
_SAMPLE = 20  # answers that make a mean


class Pace:
    """Of one service, over all peers. Times in seconds; the clock is the caller's.

    Attributes:
        ceiling: calls that may be under way.
        factor: the part of the allowed rate that is used.
    """

    def __init__(self, *, watch_slowness: bool) -> None:
        self.ceiling = math.inf
        self.factor = 1.0
        self._watch_slowness = watch_slowness
        self._cut_at = -math.inf
        self._grown_at = 0.0
        self._latency = 1.0
        self._best = math.inf
        self._answers = 0
        self._seconds = 0.0
        self._recent = 0.0
        self._refused = 0.0

    def answered(self, answers: int, seconds: float, outstanding: int, now: float) -> None:
        """So many calls more were answered, in so many seconds all together."""
        self._count(answers, 0)
        self._answers += answers
        self._seconds += seconds
        if self._answers < _SAMPLE:
            return
        self._latency = self._seconds / self._answers
        self._answers, self._seconds = 0, 0.0
        self._best = min(self._best * 1.01, self._latency)
        if self._watch_slowness and self._latency > SLOW * self._best:
            self._cut(CUT_SLOW, outstanding, now)

    def refused(self, outstanding: int, now: float, attempts: int = 1) -> None:
        """So many attempts were refused while so many calls were under way."""
        self._count(attempts, attempts)
        if self._refused > SPORADIC * max(self._recent, 1.0 / SPORADIC):
            self._cut(CUT, outstanding, now)

    def grow(self, outstanding: int, now: float) -> None:
        """Time has passed; the ceiling grows only while it is reached."""
        seconds, self._grown_at = max(0.0, now - self._grown_at), now
        if now - self._cut_at < self._latency:
            return
        self.factor = min(1.0, self.factor * (1.0 + GROWTH_PER_SECOND * seconds))
        if now - self._cut_at > FREE_AFTER_SECONDS and self.factor == 1.0:
            self.ceiling = math.inf
        elif outstanding >= 0.9 * self.ceiling:
            growth = max(LEAST_GROWTH_PER_SECOND, GROWTH_PER_SECOND * self.ceiling)
            self.ceiling += growth * seconds

    def _count(self, attempts: int, refused: int) -> None:
        """Older attempts count less and less."""
        kept = max(0.0, 1.0 - attempts / _RECENT)
        self._recent = self._recent * kept + attempts
        self._refused = self._refused * kept + refused

    def _cut(self, by: float, outstanding: int, now: float) -> None:
        if now - self._cut_at < max(self._latency, 0.2):
            return
        self._cut_at = now
        self.ceiling = max(1.0, by * min(self.ceiling, max(outstanding, 1)))
        self.factor = max(0.05, self.factor * by)
