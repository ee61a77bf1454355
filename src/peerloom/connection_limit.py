"""A limit on the connections of clients that have not authenticated, and on the time they have for it.

Anybody who reaches a listener can connect without its secret, and each connection holds a file descriptor of
the run's process. So at most `MOST` of them wait at once, each for a few seconds; others are closed at once.
"""

import asyncio
from collections.abc import Callable
from typing import cast

MOST = 64
SECONDS = 5.0


class ConnectionLimit:
    """Counts the open connections of one listener that are not known to be good.

    Args:
        most: connections at once.
        seconds: from a connection's start until `keep` or `release`, or it is closed.
    """

    def __init__(self, most: int = MOST, seconds: float = SECONDS) -> None:
        self._most = most
        self._seconds = seconds
        self._open: dict[asyncio.BaseTransport, asyncio.TimerHandle] = {}

    def admit(self, transport: asyncio.Transport) -> bool:
        """Count a new connection and return True, or close it and return False."""
        if len(self._open) >= self._most:
            transport.abort()
            return False
        self._open[transport] = asyncio.get_running_loop().call_later(self._seconds, transport.abort)
        return True

    def keep(self, transport: asyncio.BaseTransport | None) -> None:
        """Let a connection last as long as it takes; it still counts."""
        if transport in self._open:
            self._open[transport].cancel()

    def release(self, transport: asyncio.BaseTransport) -> None:
        """Stop counting a connection, which is closed or has authenticated."""
        timer = self._open.pop(transport, None)
        if timer is not None:
            timer.cancel()

    def protocol(self, inner: Callable[[], asyncio.Protocol]) -> asyncio.Protocol:
        """Return the protocol of a new connection, which passes all on to `inner` if it is admitted."""
        return _LimitedProtocol(self, inner())


class _LimitedProtocol(asyncio.Protocol):
    def __init__(self, limit: ConnectionLimit, inner: asyncio.Protocol) -> None:
        self._limit = limit
        self._inner = inner
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._limit.admit(cast("asyncio.Transport", transport)):
            self._transport = cast("asyncio.Transport", transport)
            self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._limit.release(self._transport)
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
