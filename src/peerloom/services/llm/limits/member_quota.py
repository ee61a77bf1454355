"""The driver's record of one peer that calls a service with limits.

Slots are leased: they end by themselves, so a peer that went idle need not confirm that it gave them up.
Slots of calls under way stay taken until the peer has settled them, or has ended.
"""

import math
from collections import deque

from peerloom.services.llm.usage.amounts import ENDLESS, Amount, Demand, UsageReport

SLOT_SECONDS = 1.0
"""How long a peer may begin calls in the slots it was granted, unless it is granted them again."""
KEPT_SECONDS = 0.5
"""A slot is given to another peer this much later, since grants take a while to arrive."""
RESEND_SECONDS = 0.5
"""After this a grant that calls wait for, and that its peer has not heard, is taken to be lost."""


class Member:
    """One peer as the driver sees it: its latest reading, and the grants it may still go by.

    Args:
        name: its name.
        granted: what every member has from the start.
    """

    def __init__(self, name: str, granted: Amount) -> None:
        self.name = name
        self.reading: UsageReport | None = None
        self.read_at = self.sent_at = -math.inf
        self.granted = granted
        self.slots: float = 0.0
        self.starts: float = ENDLESS
        self.number = -1
        self.served = 0  # when it last got a slot or an attempt, among all members
        self.leases: deque[tuple[int, float, float]] = deque()  # number, slots and end of grants it may go by
        self.moved: list[str] | None = None
        self.dirty = True

    def take(self, reading: UsageReport, now: float) -> None:
        """Take in a reading that is newer than the last."""
        self.reading, self.read_at = reading, now
        if reading.grant < self.number and reading.wants and now - self.sent_at > RESEND_SECONDS:
            self.dirty = True

    def send(self, slots: float, now: float) -> None:
        """Note that a grant is sent, with those slots."""
        self.number += 1
        self.dirty, self.sent_at = False, now
        if slots < ENDLESS:
            self.leases.append((self.number, slots, now + SLOT_SECONDS + KEPT_SECONDS))

    @property
    def wants(self) -> list[Demand]:
        """The calls it cannot let go yet, or expects soon."""
        return self.reading.wants if self.reading is not None else []

    @property
    def outstanding(self) -> int:
        """Its calls under way."""
        return self.reading.outstanding if self.reading is not None else 0

    @property
    def attempts(self) -> int:
        """The attempts it has begun, of all time."""
        return self.reading.attempts if self.reading is not None else 0

    @property
    def calls(self) -> float:
        """Calls under way, waiting, and expected soon."""
        return self.outstanding + sum(want.count for want in self.wants)

    @property
    def next_attempt(self) -> float:
        """When the first of its refused calls tries again; infinite if none does."""
        paused = self.reading is not None and self.reading.paused
        return self.read_at + self.reading.next_attempt if self.reading is not None and paused else math.inf

    def held(self, now: float) -> float:
        """Return the slots taken by calls under way, or by leases that neither ended nor were replaced."""
        heard = self.reading.grant if self.reading is not None else -1
        while self.leases and (self.leases[0][2] <= now or self.leases[0][0] < heard):
            self.leases.popleft()
        return max(float(self.outstanding), *(slots for _, slots, _ in self.leases), 0.0)

    def set_slots(self, slots: float) -> None:
        """Grant that many calls under way from now on."""
        if slots != self.slots:
            self.slots, self.dirty = slots, True

    def set_starts(self, starts: float) -> None:
        """Grant that many attempts, of all time."""
        if starts != self.starts:
            self.starts, self.dirty = starts, True

    def renew(self, now: float) -> None:
        """Have a new grant sent if the lease of the last one is about to end, and is needed."""
        if not self.leases or self.dirty or not self.calls:
            return
        _, slots, until = self.leases[-1]
        if slots and until - now < KEPT_SECONDS + SLOT_SECONDS / 2:
            self.dirty = True
