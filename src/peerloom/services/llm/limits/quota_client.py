"""Exchange usage reports and quota grants between the limiters of a peer and the driver."""

import asyncio
import time
from collections.abc import Callable, Sequence

from peerloom.services.llm.limits.limiter import ServiceLimiter
from peerloom.services.llm.usage.amounts import decode_grants, encode

SOON_SECONDS = 0.01  # events within this time go into one report
REGULAR_SECONDS = 0.1  # between two reports of a limiter in use
IDLE_SECONDS = 1.0  # between two reports of an idle limiter, so that the driver recovers from lost ones

Moved = Callable[[Sequence[str]], None]


class QuotaClient:
    """The limiters of one peer, in its event loop. `clock` returns seconds, also for the clients."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._limiters: dict[str, ServiceLimiter] = {}
        self._moved: dict[str, Moved] = {}
        self._moved_at: dict[str, int] = {}  # the number of the grant with the latest replicas
        self._urgent = asyncio.Event()
        self._notices: dict[str, bool] = {}  # whether each was returned

    def notify_once(self, text: str) -> None:
        """Add a notice about a service for the user, unless it was added before."""
        self._notices.setdefault(text, False)

    def new_notices(self) -> list[str]:
        """Return the notices added since the last call."""
        texts = [text for text, returned in self._notices.items() if not returned]
        self._notices.update(dict.fromkeys(texts, True))
        return texts

    @property
    def waiting(self) -> int:
        """The calls that wait for a grant, for their service or for their next attempt, over all services."""
        return sum(limiter.waiting + limiter.idle for limiter in self._limiters.values())

    def limiter(self, service: str, *, limited: bool, moved: Moved) -> ServiceLimiter:
        """Return a new limiter of a service; `moved` is called with its replicas when these have changed."""
        limiter = ServiceLimiter(service, limited=limited, urgent=self._urgent.set, clock=self.clock)
        self._limiters[service] = limiter
        self._moved[service] = moved
        self._urgent.set()  # makes the peer known to the driver, so that it can be limited later
        return limiter

    async def report(self) -> bytes:
        """Wait until a report is due, and return the encoded reports."""
        try:
            async with asyncio.timeout(self._interval()):
                await self._urgent.wait()
            await asyncio.sleep(SOON_SECONDS)
        except TimeoutError:
            pass
        self._urgent.clear()
        return self.read()

    def read(self, *, last: bool = False) -> bytes:
        """Return the encoded reports as of now; `last` if no calls follow."""
        return encode([limiter.report(last=last) for limiter in self._limiters.values()])

    def _interval(self) -> float | None:
        limiters = self._limiters.values()
        if any(limiter.active for limiter in limiters):
            return REGULAR_SECONDS
        return IDLE_SECONDS if any(limiter.limited or limiter.changed for limiter in limiters) else None

    def apply_grants(self, data: bytes) -> None:
        """Apply encoded grants."""
        for grant in decode_grants(data):
            limiter = self._limiters.get(grant.service)
            if limiter is not None:
                if grant.moved is not None and grant.number > self._moved_at.get(grant.service, -1):
                    self._moved_at[grant.service] = grant.number
                    self._moved[grant.service](grant.moved)
                limiter.apply(grant)
