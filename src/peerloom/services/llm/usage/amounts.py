"""Define the amounts, usage reports and quota grants exchanged between peers and the driver.

All figures that matter are totals since the sender began rather than differences, so messages may be lost,
duplicated or late.
"""

import math
from typing import NamedTuple

import msgspec

ENDLESS = math.inf


class Amount(NamedTuple):
    """An amount of each resource that may be limited.

    `requests` are attempts as a provider counts them, `calls` are answered attempts, which are charged,
    `tokens` are those of prompt and completion together, and `usd` are US dollars.
    """

    requests: float = 0.0
    calls: float = 0.0
    tokens: float = 0.0
    usd: float = 0.0

    def plus(self, other: "Amount", times: float = 1.0) -> "Amount":
        """Return the sum of this amount and `times` the other."""
        return Amount(
            self.requests + other.requests * times,
            self.calls + other.calls * times,
            self.tokens + other.tokens * times,
            self.usd + other.usd * times,
        )

    def least(self, other: "Amount") -> "Amount":
        """Return the minimum of both amounts for each resource."""
        return Amount(*map(min, self, other))

    def most(self, other: "Amount") -> "Amount":
        """Return the maximum of both amounts for each resource."""
        return Amount(*map(max, self, other))

    def covers(self, other: "Amount") -> bool:
        """Return whether no resource is less than the other's, up to rounding errors."""
        return (
            _enough(self.requests, other.requests)
            and _enough(self.calls, other.calls)
            and _enough(self.tokens, other.tokens)
            and _enough(self.usd, other.usd)
        )


def _enough(have: float, need: float) -> bool:
    return have >= need or have >= need - 1e-9 * max(1.0, abs(need))


NOTHING = Amount()
ANYTHING = Amount(ENDLESS, ENDLESS, ENDLESS, ENDLESS)


class Demand(msgspec.Struct, frozen=True, array_like=True):
    """The demand of one role for `count` calls with an estimated usage of `each`.

    `waiting` of the calls wait now; the others are expected soon.
    """

    role: str
    count: int
    waiting: int
    each: Amount


class UsageReport(msgspec.Struct, array_like=True, kw_only=True):
    """The usage of one service by a peer.

    Args:
        service: the name of the service.
        number: the number of this report.
        grant: the number of the latest grant received.
        spent: the usage of all ended calls.
        reserved: the maximum usage of the outstanding calls.
        returned: the amount that was granted and returned.
        outstanding: the outstanding calls.
        attempts: the attempts begun.
        refused: the attempts that the provider refused for a rate limit.
        retry_after: the longest remaining wait that the provider asks for, in seconds.
        refusal: the message of the latest refusal.
        refusal_seconds: the recent time that refusals took to arrive.
        paused: the refused calls that wait for their next attempt and hold no quota.
        next_attempt: the seconds until the first of these attempts.
        answered: the answered attempts.
        seconds: the total seconds of these attempts.
        completion: the total completion tokens of these attempts.
        demands: the calls that the quota does not cover.
        last: whether the peer has ended, so that no calls follow.
    """

    service: str
    number: int
    grant: int = -1
    spent: Amount = NOTHING
    reserved: Amount = NOTHING
    returned: Amount = NOTHING
    outstanding: int = 0
    attempts: int = 0
    refused: int = 0
    retry_after: float = 0.0
    refusal: str = ""
    refusal_seconds: float = 0.0
    paused: int = 0
    next_attempt: float = 0.0
    answered: int = 0
    seconds: float = 0.0
    completion: float = 0.0
    demands: list[Demand] = []
    last: bool = False


class QuotaGrant(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """The quota of a peer for one service.

    Args:
        service: the name of the service.
        number: the number of this grant to the peer; older grants are ignored.
        granted: the total amount granted so far.
        slots: the number of calls that may be outstanding, for the time of the `lease`.
        lease: the seconds after which no call may begin without a newer grant.
        starts: the total number of attempts that may begin.
    """

    service: str
    number: int
    granted: Amount = ANYTHING
    slots: float = ENDLESS
    lease: float = ENDLESS
    starts: float = ENDLESS


encode = msgspec.msgpack.Encoder().encode
"""Encodes a list of reports or grants as MessagePack."""
decode_reports = msgspec.msgpack.Decoder(list[UsageReport]).decode
decode_grants = msgspec.msgpack.Decoder(list[QuotaGrant]).decode
