"""One peer's meters, and what passes between them and the driver."""

import asyncio
import time
from collections.abc import Callable, Sequence

from peerloom.services.llm.limits.limiter import ServiceLimiter
from peerloom.services.llm.usage.amounts import decode_grants, encode

SOON_SECONDS = 0.01  # what comes up within it is told together
REGULAR_SECONDS = 0.1  # between two readings of a meter that is in use
IDLE_SECONDS = 1.0  # the same for one that is not, so that nothing the driver missed stays unknown to it

Moved = Callable[[Sequence[str]], None]


class QuotaClient:
    """The meters of one peer, in its event loop. `clock` gives seconds, here and to the clients."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._meters: dict[str, ServiceLimiter] = {}
        self._moved: dict[str, Moved] = {}
        self._moved_at: dict[str, int] = {}  # the number of the grant that has said it
        self._urgent = asyncio.Event()
        self._said: dict[str, bool] = {}

    def say_once(self, text: str) -> None:
        """Have a person told something about a service, unless that was said before."""
        self._said.setdefault(text, False)

    def unsaid(self) -> list[str]:
        """Return the texts of `say_once` that this has not returned yet."""
        texts = [text for text, said in self._said.items() if not said]
        self._said.update(dict.fromkeys(texts, True))
        return texts

    @property
    def waiting(self) -> int:
        """Calls that wait for a grant, or for their service to be back, over all services."""
        return sum(meter.waiting + meter.idle for meter in self._meters.values())

    def meter(self, service: str, *, limited: bool, moved: Moved) -> ServiceLimiter:
        """The meter of a service; `moved` is told where its replicas are, when that changes."""
        meter = ServiceLimiter(service, limited=limited, urgent=self._urgent.set, clock=self.clock)
        self._meters[service] = meter
        self._moved[service] = moved
        self._urgent.set()  # the driver hears of every peer, and can reach it when something gets limited
        return meter

    async def report(self) -> bytes:
        """Wait until there is something to tell the driver; encoded readings."""
        try:
            async with asyncio.timeout(self._patience()):
                await self._urgent.wait()
            await asyncio.sleep(SOON_SECONDS)
        except TimeoutError:
            pass
        self._urgent.clear()
        return self.read()

    def read(self, *, last: bool = False) -> bytes:
        """Encoded readings, as they are now; `last` if no call is made after them."""
        return encode([meter.read(last=last) for meter in self._meters.values()])

    def _patience(self) -> float | None:
        if any(meter.active for meter in self._meters.values()):
            return REGULAR_SECONDS
        told = any(meter.limited or meter.news for meter in self._meters.values())
        return IDLE_SECONDS if told else None

    def hear(self, data: bytes) -> None:
        """Take encoded grants in."""
        for grant in decode_grants(data):
            meter = self._meters.get(grant.service)
            if meter is not None:
                if grant.moved is not None and grant.number > self._moved_at.get(grant.service, -1):
                    self._moved_at[grant.service] = grant.number
                    self._moved[grant.service](grant.moved)
                meter.hear(grant)
