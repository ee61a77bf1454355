"""A rate as a bucket that fills up steadily: what is taken exceeds it by no more than the bucket holds."""


class Bucket:
    """So much a second, and at most `capacity` at once; empty at `now`, seconds by the caller's clock."""

    def __init__(self, per_second: float, capacity: float, now: float) -> None:
        self._per_second = per_second
        self._capacity = capacity
        self._level = 0.0
        self._filled_at = now

    def fill(self, now: float, at_least: float = 0.0, factor: float = 1.0) -> float:
        """What may be taken now.

        Args:
            now: seconds.
            at_least: so much it must be able to hold.
            factor: the part of the rate that counts since it was last asked.
        """
        self._capacity = max(self._capacity, at_least)
        gained = max(0.0, now - self._filled_at) * self._per_second * factor
        self._filled_at = now
        self._level = min(self._capacity, self._level + gained)
        return self._level

    def take(self, amount: float) -> None:
        """Take so much, or give it back if it is negative.

        It may be more than there is, which is made up for before anybody takes more.
        """
        self._level = min(self._capacity, self._level - amount)

    def refused(self, seconds: float) -> None:
        """The provider has counted more than was taken here: what there was is gone, and so much time's more."""
        self._level = min(self._level, 0.0) - seconds * self._per_second
