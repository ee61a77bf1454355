"""Grant quota to the members of a run.

`QuotaManager` is a state machine in the driver, with the time as an argument. Members report their demand and
usage (`UsageReport`), and each is granted more from time to time (`QuotaGrant`). So the limits hold for the
whole run, for any number of members, and no call waits for a round trip. Rates are buckets that fill slightly
more slowly than the provider's window allows, so that even its strictest count is not exceeded.
"""

from collections.abc import Mapping

from peerloom.services.llm.limits.service_quota import Limits, Refusing, ServiceQuota
from peerloom.services.llm.usage.amounts import QuotaGrant, decode_reports, encode
from peerloom.services.llm.usage.budget import Spending

Sent = tuple[str, bytes]
"""A member, and encoded grants for it."""


class QuotaManager:
    """Grants the quota of each service within its limits and the budget of the run.

    Args:
        limits: the limits by service.
        spending: the budget of the run and its usage.
        now: the current time, by any monotonic clock.
    """

    def __init__(self, limits: Mapping[str, Limits], spending: Spending, now: float) -> None:
        self._spending = spending
        self._quotas = {
            name: ServiceQuota(name, each, spending.unlimited, now) for name, each in limits.items()
        }
        self._gone: set[str] = set()

    @property
    def spending(self) -> Spending:
        """The budget and its usage."""
        return self._spending

    def take(self, member: str, data: bytes, now: float) -> None:
        """Take in the reports of a member; those of a lost member are ignored, since all it held counts."""
        if member in self._gone:
            return
        for report in decode_reports(data):
            quota = self._quotas.get(report.service)
            if quota is not None and quota.take(member, report, now):
                used, held = quota.committed(member)
                self._spending.record(report.service, member, used, held)

    def lost(self, member: str) -> None:
        """Remove a member that has ended; the quota it held may have been used, and counts as spent."""
        self._gone.add(member)
        for quota in self._quotas.values():
            quota.lost(member)
        self._spending.close(member)

    def joined(self, member: str, now: float) -> None:
        """Add a member."""
        for quota in self._quotas.values():
            quota.joined(member, now)

    def grants(self, now: float) -> list[Sent]:
        """Return the encoded grants to send to members."""
        found: dict[str, list[QuotaGrant]] = {}
        for quota in self._quotas.values():
            for member, grant in quota.grants(self._spending, now):
                found.setdefault(member, []).append(grant)
        return [(member, encode(grants)) for member, grants in found.items()]

    @property
    def unmet(self) -> bool:
        """Whether calls wait for quota that becomes available with time."""
        return any(quota.unmet for quota in self._quotas.values())

    def due(self, now: float) -> float:
        """Return the seconds until more quota may be available to waiting calls; 0 if unknown."""
        return min((quota.due(now) for quota in self._quotas.values() if quota.unmet), default=0.0)

    @property
    def exhausted(self) -> bool:
        """Whether the budget covers none of the waiting calls, and no outstanding call may return some."""
        if not self._spending.bounded or self.outstanding:
            return False
        left = self._spending.left.plus(self._spending.held)  # members return quota they cannot use
        return any(quota.stuck(left) for quota in self._quotas.values())

    @property
    def outstanding(self) -> int:
        """The outstanding calls of services with limits; those of others are not counted."""
        return sum(quota.outstanding for quota in self._quotas.values() if quota.limited)

    @property
    def waiting(self) -> int:
        """The reported calls that wait for a grant."""
        return sum(quota.waiting for quota in self._quotas.values())

    def refusing(self) -> list[Refusing]:
        """Return the services that refuse calls, so that all of their calls wait."""
        found = (quota.refusing() for quota in self._quotas.values())
        return [each for each in found if each is not None]
