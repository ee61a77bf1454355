"""Define the events that a member reports to the driver, and keep them until the driver has them.

They reach the driver in order, as one stream: messages to the coordinator, reports on services, notices, and
statistics. The driver polls for the events after the last one it has, so an answer that is lost, such as that
of a cancelled poll, loses no event.
"""

import asyncio

import msgspec

from peerloom.protocol.leases.messages import Control
from peerloom.protocol.messages import HealthReport, ToCoordinator, UsageReports
from peerloom.runtime.steps.error_counts import ErrorCount
from peerloom.services.llm.cache.client import CacheTally
from peerloom.sink.totals import AgentTally, Totals

STATS_SECONDS = 0.5  # between two reports of statistics
FIRST_SECONDS = 0.02  # before the first report; doubles each time, so that early failures show early


class MemberStats(msgspec.Struct, array_like=True, tag=100):
    """The statistics of a member since it started; each kind of member fills in its own fields.

    Attributes:
        agents: the turns taken, whether or not their tasks finish.
        in_flight: the tasks in flight at this moment.
        totals: the committed rows, over the whole life of the run directory.
        turns: the turns under way at this moment.
        cache: the use of the reply cache by this process.
        errors: the errors whose counts have changed since the last statistics.
        stuck: whether the disk has no room for the member's files.
    """

    cpu_seconds: float = 0.0
    hops: int = 0
    in_flight: int = 0
    agents: dict[str, AgentTally] = {}
    totals: Totals | None = None
    turns: int = 0
    cache: CacheTally | None = None
    errors: list[ErrorCount] = []
    stuck: bool = False


class MemberNotice(msgspec.Struct, array_like=True, tag=101):
    """A message for the user. With `once`, it is shown once in a run, even if several members send it."""

    text: str
    once: bool = False


class LeaseControls(msgspec.Struct, array_like=True, tag=102):
    """Messages of a feeder to the services whose resources tasks hold."""

    messages: list[Control]


MemberEvent = ToCoordinator | UsageReports | HealthReport | MemberStats | MemberNotice | LeaseControls

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(MemberEvent)


def decode_event(data: bytes) -> MemberEvent:
    """Decode an event."""
    return _decoder.decode(data)


class EventStream:
    """The events of one member that the driver may not have yet, encoded."""

    def __init__(self) -> None:
        self._events: list[bytes] = []
        self._received = 0  # the number of events that the driver has
        self._last_stats = b""
        self._changed = asyncio.Event()
        self._ended = False

    def emit(self, event: MemberEvent) -> None:
        """Add an event."""
        self._events.append(_encoder.encode(event))
        self._changed.set()

    def emit_stats(self, stats: MemberStats, cpu_seconds: float) -> None:
        """Add statistics, unless nothing but the CPU time has changed since the last ones."""
        encoded = _encoder.encode(stats)
        if encoded != self._last_stats:
            self._last_stats = encoded
            stats.cpu_seconds = cpu_seconds
            self.emit(stats)

    def end(self) -> None:
        """End the stream: nothing is added after this."""
        self._ended = True
        self._changed.set()

    async def poll(self, received: int) -> list[bytes]:
        """Wait for the events after the first `received` ones; empty once the member has ended."""
        del self._events[: received - self._received]
        self._received = received
        while not self._events and not self._ended:
            self._changed.clear()
            await self._changed.wait()
        return self._events.copy()
