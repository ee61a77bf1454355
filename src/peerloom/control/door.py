"""Who may stay: so many connections at once, and each only a short time until its request is known to count.

Anybody who reaches the port can connect, without a token. Each connection holds a file descriptor of the
run's own process, so what comes beyond the limit is closed at once.
"""

import asyncio
from collections.abc import Callable
from typing import cast

MOST = 64
REQUEST_SECONDS = 5.0


class Door:
    """Watches over a server's connections.

    Args:
        most: connections at once.
        seconds: from the connection until `keep`, or it is closed.
    """

    def __init__(self, most: int = MOST, seconds: float = REQUEST_SECONDS) -> None:
        self._most = most
        self._seconds = seconds
        self._open: dict[asyncio.BaseTransport, asyncio.TimerHandle] = {}

    def visitor(self, inner: Callable[[], asyncio.Protocol]) -> asyncio.Protocol:
        """The protocol of a new connection; what `inner` makes speaks on it, if it may stay."""
        return _Visitor(self, inner())

    def let_in(self, transport: asyncio.Transport) -> bool:
        """Whether a new connection may stay; if not, it is closed."""
        if len(self._open) >= self._most:
            transport.abort()
            return False
        self._open[transport] = asyncio.get_running_loop().call_later(self._seconds, transport.abort)
        return True

    def keep(self, transport: asyncio.BaseTransport | None) -> None:
        """The request of this connection is there, and counts; its answer may take its time."""
        if transport in self._open:
            self._open[transport].cancel()

    def left(self, transport: asyncio.BaseTransport) -> None:
        """A connection is closed."""
        self._open.pop(transport).cancel()


class _Visitor(asyncio.Protocol):
    """A connection that speaks by another protocol, once it was let in."""

    def __init__(self, door: Door, inner: asyncio.Protocol) -> None:
        self._door = door
        self._inner = inner
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._door.let_in(cast("asyncio.Transport", transport)):
            self._transport = cast("asyncio.Transport", transport)
            self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._door.left(self._transport)
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._transport is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._transport is not None else None

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
