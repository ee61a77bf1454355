"""Track the quota of one member of the run for one service, in the driver.

Slots are leased: they expire, so a member that became idle does not have to return them. Slots of outstanding
calls stay taken until the member has settled the calls, or has ended.
"""

import math
from collections import deque
from dataclasses import dataclass, field

from peerloom.services.llm.usage.amounts import ENDLESS, Amount, UsageReport

SLOT_SECONDS = 1.0
"""The lease of slots: the time during which a member may begin calls in them, unless the lease is renewed."""
GRACE_SECONDS = 0.5
"""The time from the end of a lease until its slots go to another member, as grants take time to arrive."""
RESEND_SECONDS = 0.5
"""The time after which an unacknowledged grant that calls wait for counts as lost."""


@dataclass(slots=True)
class MemberQuota:
    """The latest usage report of a member, and the grants that it may still use.

    Args:
        name: the name of the member.
        report: its latest report, with number -1 until there is one.
        reported_at: the time of the report, or at which the member joined.
        granted: the amount granted so far.
        served: the turn at which it last got a slot or an attempt.
        leases: the number, slots and end of each valid grant.
        dirty: whether a grant is to be sent.
    """

    name: str
    report: UsageReport
    reported_at: float
    granted: Amount
    sent_at: float = -math.inf
    slots: float = 0.0
    starts: float = ENDLESS
    number: int = -1
    served: int = 0
    leases: deque[tuple[int, float, float]] = field(default_factory=deque[tuple[int, float, float]])
    dirty: bool = True

    @property
    def reported(self) -> bool:
        """Whether it has sent a report."""
        return self.report.number >= 0

    def update(self, report: UsageReport, now: float) -> None:
        """Replace the report with a newer one."""
        self.report, self.reported_at = report, now
        needed = bool(report.demands) or report.grant < 0
        if report.grant < self.number and needed and now - self.sent_at > RESEND_SECONDS:
            self.dirty = True

    def send(self, slots: float, now: float) -> None:
        """Record that a grant with these slots is sent."""
        self.number += 1
        self.dirty, self.sent_at = False, now
        if slots < ENDLESS:
            self.leases.append((self.number, slots, now + SLOT_SECONDS + GRACE_SECONDS))

    @property
    def calls(self) -> float:
        """Calls that are outstanding, waiting, or expected soon."""
        return self.report.outstanding + sum(demand.count for demand in self.report.demands)

    @property
    def next_attempt(self) -> float:
        """The time of the next attempt of a refused call; infinite if there is none."""
        return self.reported_at + self.report.next_attempt if self.report.paused else math.inf

    def held(self, now: float) -> float:
        """Return the slots taken by outstanding calls, or by leases that neither ended nor were replaced."""
        while self.leases and (self.leases[0][2] <= now or self.leases[0][0] < self.report.grant):
            self.leases.popleft()
        return max(float(self.report.outstanding), *(slots for _, slots, _ in self.leases), 0.0)

    def set_slots(self, slots: float) -> None:
        """Set the number of calls that may be outstanding."""
        if slots != self.slots:
            self.slots, self.dirty = slots, True

    def set_starts(self, starts: float) -> None:
        """Set the total number of attempts that may begin."""
        if starts != self.starts:
            self.starts, self.dirty = starts, True

    def renew(self, now: float) -> None:
        """Request a new grant if the lease of the last one is needed and about to end."""
        if not self.leases or self.dirty or not self.calls:
            return
        _, slots, until = self.leases[-1]
        if slots and until - now < GRACE_SECONDS + SLOT_SECONDS / 2:
            self.dirty = True
