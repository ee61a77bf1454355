"""A rate as a bucket that fills up steadily: what is taken exceeds it by no more than the bucket holds."""

RETURNED_SECONDS = 4.0
"""What is given back counts up to so much time's worth: more was taken too long ago to be used now."""


class Bucket:
    """So much a second, and at most `capacity` at once; empty at `now`, seconds by the caller's clock."""

    def __init__(self, per_second: float, capacity: float, now: float) -> None:
        self._per_second = per_second
        self._capacity = capacity
        self._level = 0.0
        self._filled_at = now

    def fill(self, now: float, at_least: float = 0.0) -> float:
        """What may be taken now.

        Args:
            now: seconds.
            at_least: so much it must be able to hold beside its capacity: one call that is waited for.
        """
        gained = max(0.0, now - self._filled_at) * self._per_second
        self._filled_at = now
        self._level = max(self._level, min(self._capacity + at_least, self._level + gained))
        return self._level

    def take(self, amount: float) -> None:
        """Take so much, or give it back if it is negative.

        It may be more than there is, which is made up for before anybody takes more.
        """
        most = max(self._level, self._capacity, RETURNED_SECONDS * self._per_second)
        self._level = min(most, self._level - amount)

    def refused(self, seconds: float) -> None:
        """The provider has counted more than was taken here: what there was is gone, and more."""
        self._level = min(self._level, 0.0) - seconds * self._per_second
