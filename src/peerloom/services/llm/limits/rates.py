"""What of a provider's rates is left: two buckets, and what each member was given out of them.

What calls under way have reserved counts as used: it is more than most of them take, but those that are under
way for long are the long ones.
"""

from peerloom.services.llm.limits.bucket import Bucket
from peerloom.services.llm.usage.amounts import ENDLESS, NOTHING, Amount, UsageReport

SHORT_SECONDS = 0.25
"""So much of the rates is left out after a refusal, or the next calls would be refused too."""


class Rates:
    """Of one service; a bucket that is None does not bound anything."""

    def __init__(self, requests: Bucket | None, tokens: Bucket | None) -> None:
        self._requests = requests
        self._tokens = tokens
        self._taken: dict[str, Amount] = {}

    @property
    def first(self) -> Amount:
        """Infinite for what is not bounded here."""
        return Amount(
            ENDLESS if self._requests is None else 0.0,
            ENDLESS,
            ENDLESS if self._tokens is None else 0.0,
            ENDLESS,
        )

    @property
    def bounded(self) -> bool:
        """Whether there is any bucket."""
        return self._requests is not None or self._tokens is not None

    def there(self, largest: float, now: float) -> Amount:
        """What may be granted now.

        Args:
            largest: tokens of one call, which a bucket must be able to hold.
            now: seconds.
        """
        return Amount(
            ENDLESS if self._requests is None else self._requests.fill(now, 1.0),
            ENDLESS,
            ENDLESS if self._tokens is None else self._tokens.fill(now, largest),
            ENDLESS,
        )

    def take(self, name: str, granted: Amount, reading: UsageReport) -> None:
        """Take what a member was granted, or give back what it does not need, by what it says."""
        counts = granted.plus(reading.returned, -1.0)
        before = self._taken.get(name, NOTHING)
        self._taken[name] = counts
        if self._requests is not None:
            self._requests.take(counts.requests - before.requests)
        if self._tokens is not None:
            self._tokens.take(counts.tokens - before.tokens)

    def lost(self, name: str) -> None:
        """A member has ended: all of it counts as used."""
        self._taken.pop(name, None)

    def refused(self) -> None:
        """The provider has counted more than was taken here."""
        for bucket in (self._requests, self._tokens):
            if bucket is not None:
                bucket.refused(SHORT_SECONDS)
