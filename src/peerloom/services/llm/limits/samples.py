"""Measure how many attempts a provider accepts, and which share it refuses."""

import math

ROUND_SECONDS = 0.25
"""Time in which a refusal arrives."""


class Average:
    """Events per second, averaged over the last `seconds`, older ones counting less."""

    def __init__(self, now: float, seconds: float) -> None:
        self._at = now
        self._average = seconds
        self._count = self._seconds = 0.0

    @property
    def seconds(self) -> float:
        """The time that it is taken over."""
        return self._seconds

    def add(self, count: int, now: float) -> None:
        """Count some events."""
        self._pass(now)
        self._count += count

    def per_second(self, now: float) -> float:
        """Return the average; infinite while too little time has passed to tell."""
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
    """The latest attempts and how many of them were refused.

    Args:
        now: when it begins.
        attempts: from which a share of refusals is measured.
        seconds: after which fewer have to do.
    """

    def __init__(self, now: float, attempts: int, seconds: float) -> None:
        self._enough, self._longest = attempts, seconds
        self.restart(now)

    def restart(self, at: float) -> None:
        """Count from that time on."""
        self.began = at
        self.attempts = self.refused = 0

    def add(self, attempts: int, refused: int, now: float) -> None:
        """Count attempts, unless it is too early for it."""
        if now >= self.began:
            self.attempts += attempts
            self.refused += refused

    @property
    def share(self) -> float:
        """Refused attempts of all."""
        return min(1.0, self.refused / max(1, self.attempts))

    def exceeds(self, tolerated: float, least: int) -> bool:
        """Whether there are that many attempts, and more refusals than the share explains (at two sigma)."""
        attempts = max(self.attempts, self.refused)
        spread = math.sqrt(attempts * tolerated * (1.0 - tolerated))
        return attempts >= least and self.refused > attempts * tolerated + 2.0 * spread

    def complete(self, now: float) -> bool:
        """Whether it is large enough to measure a share."""
        seconds = now - self.began
        return seconds >= ROUND_SECONDS and (
            self.attempts >= self._enough or (self.attempts > 0 and seconds >= self._longest)
        )

    def renew(self, now: float) -> None:
        """Begin a new sample once this one is complete, or too old."""
        if self.complete(now) or now - self.began >= self._longest:
            self.restart(now)
