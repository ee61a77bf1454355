"""Measure the rate of attempts that a provider accepts, the share that it refuses, and its speed."""

import math

ROUND_SECONDS = 0.25
"""The time in which a refusal arrives."""
SLOW = 3.0  # times the best time per token
SLOW_ANSWERS = 100  # answers between two measurements of the speed
OVERHEAD_TOKENS = 50  # tokens whose time a call takes in addition to that of its completion


class Average:
    """An exponentially weighted average of events per second, over about the last `seconds`."""

    def __init__(self, now: float, seconds: float) -> None:
        self._at = now
        self._average = seconds
        self._count = self._seconds = 0.0

    @property
    def seconds(self) -> float:
        """The weighted time of the average."""
        return self._seconds

    def add(self, count: int, now: float) -> None:
        """Count some events."""
        self._pass(now)
        self._count += count

    def add_earlier(self, count: int, since: float, now: float) -> None:
        """Count events that happened at an even rate since a time."""
        self._pass(now)
        seconds = max(now - since, ROUND_SECONDS)
        self._count += count / seconds * self._average * (1.0 - math.exp(-seconds / self._average))

    def per_second(self, now: float) -> float:
        """Return the average; infinite while too little time has passed."""
        self._pass(now)
        if self._seconds < ROUND_SECONDS:
            return math.inf
        return max(0.0, self._count) / self._seconds

    def _pass(self, now: float) -> None:
        seconds, self._at = max(0.0, now - self._at), now
        kept = math.exp(-seconds / self._average)
        self._count *= kept
        self._seconds = self._seconds * kept + self._average * (1.0 - kept)


class Sample:
    """The numbers of the latest attempts and refusals.

    Args:
        now: the beginning of the sample.
        attempts: the number of attempts that completes it.
        seconds: the time after which fewer attempts complete it.
    """

    def __init__(self, now: float, attempts: int, seconds: float) -> None:
        self._enough, self._longest = attempts, seconds
        self.restart(now)

    def restart(self, at: float) -> None:
        """Start a new sample at that time."""
        self.began = at
        self.attempts = self.refused = 0

    def add(self, attempts: int, refused: int, now: float) -> None:
        """Count attempts, unless the sample has not begun yet."""
        if now >= self.began:
            self.attempts += attempts
            self.refused += refused

    @property
    def share(self) -> float:
        """The share of refused attempts."""
        return min(1.0, self.refused / max(1, self.attempts))

    def exceeds(self, tolerated: float, least: int) -> bool:
        """Return whether `least` or more attempts have more refusals than `tolerated` explains (2 sigma)."""
        attempts = max(self.attempts, self.refused)
        spread = math.sqrt(attempts * tolerated * (1.0 - tolerated))
        return attempts >= least and self.refused > attempts * tolerated + 2.0 * spread

    def complete(self, now: float) -> bool:
        """Return whether the sample is large enough to measure a share."""
        seconds = now - self.began
        return seconds >= ROUND_SECONDS and (
            self.attempts >= self._enough or (self.attempts > 0 and seconds >= self._longest)
        )

    def renew(self, now: float) -> None:
        """Start a new sample once this one is complete or too old."""
        if self.complete(now) or now - self.began >= self._longest:
            self.restart(now)


class Slowness:
    """The seconds per token of one service, over all peers."""

    def __init__(self) -> None:
        self._best = math.inf
        self._answers = 0
        self._seconds = 0.0
        self._tokens = 0.0

    def add(self, answers: int, seconds: float, tokens: float) -> bool:
        """Count answers with their total seconds and tokens; return whether to reduce the calls in flight."""
        self._answers += answers
        self._seconds += seconds
        self._tokens += tokens
        if self._answers < SLOW_ANSWERS:
            return False
        slowness = self._seconds / (self._tokens + self._answers * OVERHEAD_TOKENS)
        self._answers, self._seconds, self._tokens = 0, 0.0, 0.0
        self._best = min(self._best * 1.02, slowness)
        slow = slowness > SLOW * self._best
        if slow:
            self._best *= 1.25  # if fewer calls in flight do not help, there are other reasons
        return slow
