"""Limit the connections of clients that have not authenticated, in number and in time.

Any client that reaches a listener can connect without knowing its secret, and each connection takes a file
descriptor of the run's process. So at most `MAX_CONNECTIONS` of them are open at once, each for at most
`TIMEOUT_SECONDS`; further ones are closed immediately.
"""

import asyncio
from collections.abc import Callable
from typing import cast

MAX_CONNECTIONS = 64
TIMEOUT_SECONDS = 5.0


class ConnectionLimit:
    """Counter of one listener's open connections that have not authenticated.

    Args:
        most: the number of connections at once.
        seconds: the time from a connection's start after which it is closed, unless `cancel_timeout` or
            `release` is called first.
    """

    def __init__(self, most: int = MAX_CONNECTIONS, seconds: float = TIMEOUT_SECONDS) -> None:
        self._most = most
        self.seconds = seconds
        self._open: dict[asyncio.BaseTransport, asyncio.TimerHandle] = {}

    def admit(self, transport: asyncio.Transport) -> bool:
        """Count a new connection and return True, or close it and return False."""
        if len(self._open) >= self._most:
            transport.abort()
            return False
        self._open[transport] = asyncio.get_running_loop().call_later(self.seconds, transport.abort)
        return True

    def cancel_timeout(self, transport: asyncio.BaseTransport | None) -> None:
        """Remove the time limit of a connection, which still counts."""
        if transport in self._open:
            self._open[transport].cancel()

    def release(self, transport: asyncio.BaseTransport) -> None:
        """Stop counting a connection, which is closed or has authenticated."""
        timer = self._open.pop(transport, None)
        if timer is not None:
            timer.cancel()

    def protocol(self, inner: Callable[[], asyncio.Protocol]) -> asyncio.Protocol:
        """Return the protocol of a new connection, which forwards to `inner` if it is admitted."""
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
