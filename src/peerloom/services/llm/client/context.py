"""Connect the clients of one peer with the driver: usage reports, quota grants, health and endpoints."""

import asyncio
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from peerloom.services.llm.limits.limiter import ServiceLimiter
from peerloom.services.llm.usage.amounts import decode_grants, encode

SOON_SECONDS = 0.01  # events within this time go into one report
REGULAR_SECONDS = 0.1  # between two reports of a limiter in use
IDLE_SECONDS = 1.0  # between two reports of an idle limiter, so that the driver recovers from lost ones


class Health(NamedTuple):
    """The health of a service, as one peer sees it.

    `down` is the reason why it does not answer, empty if it does; `denied` is whether it denies all requests
    of this run, and `answered` whether it has ever answered a call.
    """

    down: str = ""
    denied: bool = False
    answered: bool = False


class ClientContext:
    """The link between the clients of one peer and the driver, in the event loop of the peer.

    Args:
        clock: returns seconds.
        on_health: called with a service and its health whenever that has changed.

    Attributes:
        clock: returns seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        on_health: Callable[[str, Health], None] = lambda service, health: None,
    ) -> None:
        self.clock = clock
        self._limiters: dict[str, ServiceLimiter] = {}
        self._urgent = asyncio.Event()
        self._on_health = on_health
        self._health: dict[str, Health] = {}
        self._on_move: dict[str, Callable[[Sequence[str]], None]] = {}
        self._moves: dict[str, int] = {}  # the number of the latest change of endpoints
        self._idle = 0
        self._notices: dict[str, bool] = {}  # whether each was returned

    @property
    def waiting(self) -> int:
        """The calls that wait for a grant, for their service or for their next attempt."""
        return self._idle + sum(limiter.waiting for limiter in self._limiters.values())

    def limiter(self, service: str, *, limited: bool) -> ServiceLimiter:
        """Return a new limiter of a service."""
        limiter = ServiceLimiter(service, limited=limited, urgent=self._urgent.set, clock=self.clock)
        self._limiters[service] = limiter
        return limiter

    async def report_usage(self) -> bytes:
        """Wait until a usage report is due, and return the encoded reports.

        A service without limits is reported only once it has refused a call.
        """
        metered = [limiter for limiter in self._limiters.values() if limiter.metered]
        interval = REGULAR_SECONDS if any(limiter.active for limiter in metered) else IDLE_SECONDS
        try:
            async with asyncio.timeout(interval if metered else None):
                await self._urgent.wait()
            await asyncio.sleep(SOON_SECONDS)
        except TimeoutError:
            pass
        self._urgent.clear()
        return self.read_usage()

    def read_usage(self, *, last: bool = False) -> bytes:
        """Return the encoded reports as of now, empty if there are none; `last` if no calls follow."""
        reports = [each.report(last=last) for each in self._limiters.values() if each.metered]
        return encode(reports) if reports else b""

    def apply_grants(self, data: bytes) -> None:
        """Apply encoded quota grants."""
        for grant in decode_grants(data):
            if (limiter := self._limiters.get(grant.service)) is not None:
                limiter.apply(grant)

    @contextmanager
    def idle(self) -> Generator[None]:
        """Count a call that waits for its service, or for its next attempt, inside the block."""
        self._idle += 1
        try:
            yield
        finally:
            self._idle -= 1

    def notify_once(self, text: str) -> None:
        """Add a notice about a service for the user, unless it was added before."""
        self._notices.setdefault(text, False)

    def new_notices(self) -> list[str]:
        """Return the notices added since the last call."""
        texts = [text for text, returned in self._notices.items() if not returned]
        self._notices.update(dict.fromkeys(texts, True))
        return texts

    def set_down(self, service: str, why: str, denied: bool = False) -> None:
        """Set the reason why a service does not answer, or the empty string if it does."""
        self._set_health(service, Health(why, denied, self._health.get(service, Health()).answered))

    def set_answered(self, service: str) -> None:
        """Note that a service has answered a call."""
        self._set_health(service, self._health.get(service, Health())._replace(answered=True))

    def on_move(self, service: str, callback: Callable[[Sequence[str]], None]) -> None:
        """Call `callback` with the endpoints of a service whenever they have changed."""
        self._on_move[service] = callback

    def move(self, service: str, number: int, urls: Sequence[str]) -> None:
        """Change the endpoints of a service; `number` orders the changes, as an older one may come late."""
        if service in self._on_move and number > self._moves.get(service, 0):
            self._moves[service] = number
            self._on_move[service](urls)

    def _set_health(self, service: str, health: Health) -> None:
        if health != self._health.get(service, Health()):
            self._health[service] = health
            self._on_health(service, health)
