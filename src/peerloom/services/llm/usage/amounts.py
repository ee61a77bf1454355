"""What passes between the peers' meters and the driver's allowance: amounts, readings and grants.

All figures that matter are sums since the sender began, and none is a difference: what is lost, or arrives
twice or late, does no harm.
"""

import math
from typing import NamedTuple

import msgspec

RESOURCES = ("requests", "calls", "tokens", "usd")
ENDLESS = math.inf


class Amount(NamedTuple):
    """So much of everything that may be limited.

    `requests` are attempts as a provider counts them, `calls` those that were answered and so paid,
    `tokens` prompt and completion together, `usd` dollars.
    """

    requests: float = 0.0
    calls: float = 0.0
    tokens: float = 0.0
    usd: float = 0.0

    def plus(self, other: "Amount", times: float = 1.0) -> "Amount":
        """This and so many times the other."""
        return Amount(
            self.requests + other.requests * times,
            self.calls + other.calls * times,
            self.tokens + other.tokens * times,
            self.usd + other.usd * times,
        )

    def least(self, other: "Amount") -> "Amount":
        """The smaller of both, each resource for itself."""
        return Amount(*map(min, self, other))

    def most(self, other: "Amount") -> "Amount":
        """The greater of both, each resource for itself."""
        return Amount(*map(max, self, other))

    def covers(self, other: "Amount") -> bool:
        """Whether there is enough of everything for the other; rounding errors do not count."""
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
    """`count` calls of one agent that a meter cannot let go yet, or expects soon; each may take `each`.

    Of `waiting` of them somebody is waiting for now.
    """

    role: str
    count: int
    waiting: int
    each: Amount


class UsageReport(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What a peer's meter of one service says.

    Args:
        service: its name.
        number: counts this meter's readings.
        grant: the number of the last grant that it has heard.
        spent: all calls that are over, as they came out.
        reserved: what the calls under way may take.
        returned: what was granted and given back.
        outstanding: calls under way.
        attempts: attempts begun.
        refused: attempts that the provider refused for a limit.
        retry_after: the longest wait that it still asks for, in seconds.
        refusal: its latest refusal, in words.
        refusal_seconds: how long refusals took to arrive, lately.
        paused: refused calls that wait for their next attempt and hold nothing.
        next_attempt: seconds until the first of those.
        answered: attempts that were answered.
        seconds: that these took, summed.
        completion: tokens that they wrote, summed.
        wants: calls that are not covered by what was granted.
        down: why the service does not answer anybody here; empty if it does.
        denied: whether that is because it refuses this run whatever it asks.
        last: whether the peer has ended, and makes no call any more.
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
    wants: list[Demand] = []
    down: str = ""
    denied: bool = False
    last: bool = False


class QuotaGrant(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What a peer's meter may use.

    Args:
        service: whose calls.
        number: counts the grants to this peer; the greatest counts.
        limited: whether calls are to be metered at all.
        granted: all that it ever got.
        slots: calls it may have under way when one begins, for as long as `lease` says.
        lease: seconds after which no call may begin for want of a newer grant.
        starts: attempts that may have begun, of all since the meter was made.
        moved: where the replicas are from now on, if that has changed.
    """

    service: str
    number: int
    limited: bool = True
    granted: Amount = ANYTHING
    slots: float = ENDLESS
    lease: float = ENDLESS
    starts: float = ENDLESS
    moved: list[str] | None = None


_encoder = msgspec.msgpack.Encoder()
_readings = msgspec.msgpack.Decoder(list[UsageReport])
_grants = msgspec.msgpack.Decoder(list[QuotaGrant])


def encode(said: "list[UsageReport] | list[QuotaGrant]") -> bytes:
    """Readings or grants as MessagePack."""
    return _encoder.encode(said)


def decode_reports(data: bytes) -> list[UsageReport]:
    """Readings, as encoded."""
    return _readings.decode(data)


def decode_grants(data: bytes) -> list[QuotaGrant]:
    """Grants, as encoded."""
    return _grants.decode(data)
