"""Limit the rates of requests and tokens with token buckets, and track the amounts granted to each member.

Reservations of outstanding calls count as used. They exceed the usage of most calls, but the calls that stay
outstanding for long are the long ones.
"""

from peerloom.services.llm.usage.amounts import ANYTHING, NOTHING, Amount, UsageReport

RETURNED_SECONDS = 4.0
"""Returned amounts count up to the rate of this time; a provider no longer credits older ones."""
SHORT_SECONDS = 0.25
"""The time at the full rates that is skipped after a refusal, since the next calls would be refused too."""


class Bucket:
    """A token bucket: `per_second` is added up to `capacity`. It is empty at `now`, by the caller's clock."""

    def __init__(self, per_second: float, capacity: float, now: float) -> None:
        self._per_second = per_second
        self._capacity = capacity
        self._level = 0.0
        self._filled_at = now

    def fill(self, now: float, at_least: float = 0.0) -> float:
        """Return the amount that may be taken now; `at_least` is additional capacity for one waiting call."""
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


class RateBuckets:
    """The buckets of one service, by the name of the resource in `Amount`."""

    def __init__(self, buckets: dict[str, Bucket]) -> None:
        self._buckets = buckets
        self._taken: dict[str, Amount] = {}

    @property
    def unlimited(self) -> Amount:
        """An amount that is infinite for unlimited resources and 0 for limited ones."""
        return ANYTHING._replace(**dict.fromkeys(self._buckets, 0.0))

    @property
    def bounded(self) -> bool:
        """Whether any rate is limited."""
        return bool(self._buckets)

    def available(self, largest: Amount, now: float) -> Amount:
        """Return the amount that may be granted now; buckets must be able to hold the `largest` call."""
        return ANYTHING._replace(
            **{name: bucket.fill(now, getattr(largest, name)) for name, bucket in self._buckets.items()}
        )

    def take(self, name: str, granted: Amount, report: UsageReport) -> None:
        """Take the amount granted to a member from the buckets, less the amount that it has returned."""
        counts = granted.plus(report.returned, -1.0)
        before = self._taken.get(name, NOTHING)
        self._taken[name] = counts
        for resource, bucket in self._buckets.items():
            bucket.take(getattr(counts, resource) - getattr(before, resource))

    def remove(self, name: str) -> None:
        """Forget a member that has ended; its amount counts as used."""
        self._taken.pop(name, None)

    def refused(self) -> None:
        """Empty all buckets after a refusal: the provider has counted more than was taken."""
        for bucket in self._buckets.values():
            bucket.refused(SHORT_SECONDS)
