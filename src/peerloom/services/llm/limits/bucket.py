"""Limit a rate with a token bucket."""

RETURNED_SECONDS = 4.0
"""Returned amounts count up to the rate of this time; a provider no longer credits older ones."""


class Bucket:
    """A token bucket: `per_second` is added up to `capacity`. It is empty at `now`, by the caller's clock."""

    def __init__(self, per_second: float, capacity: float, now: float) -> None:
        self._per_second = per_second
        self._capacity = capacity
        self._level = 0.0
        self._filled_at = now

    def fill(self, now: float, at_least: float = 0.0) -> float:
        """Return the amount that may be taken now.

        Args:
            now: the current time.
            at_least: the additional capacity needed for one waiting call.
        """
        gained = max(0.0, now - self._filled_at) * self._per_second
        self._filled_at = now
        self._level = max(self._level, min(self._capacity + at_least, self._level + gained))
        return self._level

    def take(self, amount: float) -> None:
        """Take an amount, or return it if it is negative.

        It may exceed the level, which has to be refilled before more can be taken.
        """
        most = max(self._level, self._capacity, RETURNED_SECONDS * self._per_second)
        self._level = min(most, self._level - amount)

    def refused(self, seconds: float) -> None:
        """Empty the bucket and take another `seconds` at the full rate, after a refusal by the provider."""
        self._level = min(self._level, 0.0) - seconds * self._per_second
