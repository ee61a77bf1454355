"""Track the remaining requests and tokens of a provider's rates, and the amounts granted to each member.

Reservations of outstanding calls count as used. They exceed the usage of most calls, but the calls that stay
outstanding for long are the long ones.
"""

from peerloom.services.llm.limits.bucket import Bucket
from peerloom.services.llm.usage.amounts import ENDLESS, NOTHING, Amount, UsageReport

SHORT_SECONDS = 0.25
"""The time at the full rates that is skipped after a refusal, since the next calls would be refused too."""


class RateBuckets:
    """The request and token buckets of one service; None for an unlimited rate."""

    def __init__(self, requests: Bucket | None, tokens: Bucket | None) -> None:
        self._requests = requests
        self._tokens = tokens
        self._taken: dict[str, Amount] = {}

    @property
    def unlimited(self) -> Amount:
        """An amount that is infinite for unlimited resources and 0 for limited ones."""
        return Amount(
            ENDLESS if self._requests is None else 0.0,
            ENDLESS,
            ENDLESS if self._tokens is None else 0.0,
            ENDLESS,
        )

    @property
    def bounded(self) -> bool:
        """Whether any rate is limited."""
        return self._requests is not None or self._tokens is not None

    def available(self, largest: float, now: float) -> Amount:
        """Return the amount that may be granted now.

        Args:
            largest: the tokens of the largest waiting call, which the bucket must be able to hold.
            now: the current time.
        """
        return Amount(
            ENDLESS if self._requests is None else self._requests.fill(now, 1.0),
            ENDLESS,
            ENDLESS if self._tokens is None else self._tokens.fill(now, largest),
            ENDLESS,
        )

    def take(self, name: str, granted: Amount, report: UsageReport) -> None:
        """Take the amount granted to a member from the buckets, less the amount that it has returned."""
        counts = granted.plus(report.returned, -1.0)
        before = self._taken.get(name, NOTHING)
        self._taken[name] = counts
        if self._requests is not None:
            self._requests.take(counts.requests - before.requests)
        if self._tokens is not None:
            self._tokens.take(counts.tokens - before.tokens)

    def remove(self, name: str) -> None:
        """Forget a member that has ended; its amount counts as used."""
        self._taken.pop(name, None)

    def refused(self) -> None:
        """Empty all buckets after a refusal: the provider has counted more than was taken."""
        for bucket in (self._requests, self._tokens):
            if bucket is not None:
                bucket.refused(SHORT_SECONDS)
