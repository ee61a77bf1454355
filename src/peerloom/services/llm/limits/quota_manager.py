"""Grant quota to the peers of a run: a state machine in the driver, with the clock as argument.

Peers report what they want and what they have used (`UsageReport`); now and then each is granted more
(`QuotaGrant`). So the limits hold for the run, whatever the number of peers, and no call has to ask. Rates
are buckets that fill a little more slowly than the provider's window allows, so that not even its strictest
count is exceeded.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from peerloom.services.llm.limits.service_quota import Limits, Refusing, ServiceQuota
from peerloom.services.llm.usage.amounts import QuotaGrant, decode_reports, encode
from peerloom.services.llm.usage.budget import Spending

Sent = tuple[str, bytes]
"""A member, and encoded grants for it."""


class Away(NamedTuple):
    """A service that answers nobody in some peer: why, and whether it refuses whatever this run asks."""

    service: str
    why: str
    denied: bool


class QuotaManager:
    """Limits of each service and the budget of the run.

    Args:
        limits: by service; those that are not in it have none.
        spending: the run's budget, and what of it is spent.
        now: seconds, by any clock that does not go back.
    """

    def __init__(self, limits: Mapping[str, Limits], spending: Spending, now: float) -> None:
        self._spending = spending
        self._shares = {
            name: ServiceQuota(name, each, spending.limited, now) for name, each in limits.items()
        }
        self._moved: dict[str, list[str]] = {}
        self._gone: set[str] = set()

    @property
    def spending(self) -> Spending:
        """The budget, and what of it is spent."""
        return self._spending

    def take(self, member: str, data: bytes, now: float) -> None:
        """Take a member's readings in; what one that is lost has still said is counted already."""
        if member in self._gone:
            return
        for reading in decode_reports(data):
            share = self._shares.get(reading.service)
            if share is not None and share.take(member, reading, now):
                used, held = share.committed(member)
                self._spending.note(reading.service, member, used, held)

    def lost(self, member: str) -> None:
        """A member has ended: what it held may have been used, and counts as spent."""
        self._gone.add(member)
        for share in self._shares.values():
            share.lost(member)
        self._spending.close(member)

    def joined(self, member: str) -> None:
        """A member is there; it is told where replicas are, if that has changed since the run began."""
        for service, urls in self._moved.items():
            self._shares[service].tell(member, urls)

    def moved(self, service: str, urls: Sequence[str], members: Sequence[str]) -> None:
        """A service's replicas are somewhere else from now on; these members are to be told."""
        self._moved[service] = list(urls)
        for member in members:
            self._shares[service].tell(member, self._moved[service])

    def grants(self, now: float) -> list[Sent]:
        """What to send to whom."""
        found: dict[str, list[QuotaGrant]] = {}
        for share in self._shares.values():
            for member, grant in share.grants(self._spending, now):
                found.setdefault(member, []).append(grant)
        return [(member, encode(grants)) for member, grants in found.items()]

    @property
    def unmet(self) -> bool:
        """Whether calls wait that time alone will let go."""
        return any(share.unmet for share in self._shares.values())

    def due(self, now: float) -> float:
        """Seconds until more may be granted to calls that time alone lets go; 0 if that is not known."""
        return min((share.due(now) for share in self._shares.values() if share.unmet), default=0.0)

    @property
    def exhausted(self) -> bool:
        """Whether calls wait that the budget does not cover, and none is under way that might leave some."""
        if not self._spending.bounded or self.outstanding:
            return False
        left = self._spending.left.plus(self._spending.held)  # which comes back if nobody begins with it
        return any(share.stuck(left) for share in self._shares.values())

    @property
    def outstanding(self) -> int:
        """Calls under way to services with limits; nobody keeps count of others."""
        return sum(share.outstanding for share in self._shares.values() if share.limited)

    @property
    def waiting(self) -> int:
        """Calls that wait for a grant, as far as is known."""
        return sum(share.waiting for share in self._shares.values())

    def away(self) -> list[Away]:
        """Services that some peer cannot reach, or that refuse it."""
        found = ((service, share.away()) for service, share in self._shares.items())
        return [Away(service, *why) for service, why in found if why is not None]

    def refusing(self) -> list[Refusing]:
        """Services that refuse calls, so that all of their calls wait."""
        found = (share.refusing() for share in self._shares.values())
        return [each for each in found if each is not None]

    def ever_answered(self, service: str) -> bool:
        """Whether a service has answered any call of this session."""
        return self._shares[service].answered > 0
