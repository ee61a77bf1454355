"""Send requests over a pool of keep-alive HTTP/1.1 connections.

There are as many connections as concurrent requests, which admission bounds. The connection used last is used
next, so surplus ones expire and are closed. A server may close an idle connection just as a request is
written to it. The request is then resent on a new connection, but only if the connection was closed at once
and without any response: otherwise the server may have accepted the request.
"""

import asyncio
import re
from collections import deque
from collections.abc import Mapping
from contextlib import suppress

from yarl import URL

from peerloom.services.llm.http.base import HttpResponse, TransportError
from peerloom.services.llm.http.connection import Disconnected, HttpConnection
from peerloom.services.llm.http.connector import Connector
from peerloom.services.llm.http.decompression import ACCEPTED, decompressed

KEEPALIVE_SECONDS = 60.0
_STALE_SECONDS = 1.0  # within which a request learns that its connection was already closed
_CLOSE_SECONDS = 1.0
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class Http1Transport:
    """Sends requests to one server, in the running event loop.

    Args:
        base: any URL of the server.
        headers: the headers of all requests.
        seconds: the timeout of a request, from connecting to the last byte.
        connect_seconds: the timeout for opening a connection.
        keepalive_seconds: the time after which an idle connection is closed.

    Raises:
        ValueError: if a header contains control characters.
    """

    def __init__(
        self,
        base: URL,
        headers: Mapping[str, str],
        *,
        seconds: float,
        connect_seconds: float,
        keepalive_seconds: float = KEEPALIVE_SECONDS,
    ) -> None:
        self._connector = Connector(base)
        self._common = _lines(
            {"Host": base.host_port_subcomponent or "", "Accept-Encoding": ACCEPTED, **headers}
        )
        self._seconds = seconds
        self._connect_seconds = connect_seconds
        self._keepalive = keepalive_seconds
        self._loop = asyncio.get_running_loop()
        self._heads: dict[tuple[str, URL], bytes] = {}
        self._idle: deque[HttpConnection] = deque()  # the one used last at the right
        self._all: set[HttpConnection] = set()
        self._empty = asyncio.Event()
        self._reaper: asyncio.TimerHandle | None = None
        self._closed = False

    async def send(self, method: str, url: URL, body: bytes, headers: Mapping[str, str]) -> HttpResponse:
        """Send one request and return the response; see `Transport.send`."""
        head = self._head(method, url, headers, len(body))
        began = self._loop.time()
        until = began + self._seconds
        connection = self._reuse(began)
        if connection is not None:
            try:
                return await self._exchange(connection, head, body, until)
            except Disconnected:
                if self._loop.time() - began > _STALE_SECONDS:
                    raise
        connection = await self._open(until)
        return await self._exchange(connection, head, body, until)

    async def close(self) -> None:
        """Close all connections."""
        self._closed = True
        if self._reaper is not None:
            self._reaper.cancel()
        self._idle.clear()
        for connection in self._all:
            connection.abort()
        if self._all:
            self._empty.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._empty.wait()

    async def _exchange(
        self, connection: HttpConnection, head: bytes, body: bytes, until: float
    ) -> HttpResponse:
        waiter: asyncio.Future[HttpResponse] = self._loop.create_future()
        timer = self._loop.call_at(until, self._time_out, connection, waiter)
        connection.send(head, body, waiter)
        try:
            return decompressed(await waiter)
        except asyncio.CancelledError:
            connection.drop(waiter)
            raise
        finally:
            timer.cancel()

    def _time_out(self, connection: HttpConnection, waiter: "asyncio.Future[HttpResponse]") -> None:
        connection.drop(waiter, TransportError(f"timeout (no reply in {self._seconds:g} s)"))

    def _head(self, method: str, url: URL, headers: Mapping[str, str], size: int) -> bytes:
        begin = self._heads.get((method, url))
        if begin is None:
            line = f"{method} {url.raw_path_qs} HTTP/1.1\r\n".encode()
            begin = self._heads[method, url] = line + self._common
        end = b"Content-Length: %d\r\n\r\n" % size if size or method == "POST" else b"\r\n"
        return begin + (_lines(headers) if headers else b"") + end

    async def _open(self, until: float) -> HttpConnection:
        left = min(self._connect_seconds, until - self._loop.time())
        connection = await self._connector.open(
            lambda: HttpConnection(self._released, self._lost), max(0.0, left)
        )
        if self._closed:
            connection.abort()
            raise TransportError("the client is closed", taken=False)
        if connection.open:
            self._all.add(connection)
        return connection

    def _reuse(self, now: float) -> HttpConnection | None:
        """Return the open idle connection that was used last, if any."""
        while self._idle:
            connection = self._idle.pop()
            if connection.open:
                if now - connection.idle_since < self._keepalive:
                    return connection
                connection.abort()
        return None

    def _released(self, connection: HttpConnection) -> None:
        if self._closed:
            connection.abort()
            return
        connection.idle_since = self._loop.time()
        self._idle.append(connection)
        if self._reaper is None:
            self._reaper = self._loop.call_later(self._keepalive, self._reap)

    def _reap(self) -> None:
        """Close expired connections, and schedule the next pass."""
        idle, now = self._idle, self._loop.time()
        self._reaper = None
        while idle and (not idle[0].open or now - idle[0].idle_since >= self._keepalive):
            idle.popleft().abort()
        if idle:
            self._reaper = self._loop.call_at(idle[0].idle_since + self._keepalive, self._reap)

    def _lost(self, connection: HttpConnection) -> None:
        self._all.discard(connection)
        if not self._all:
            self._empty.set()


def _lines(headers: Mapping[str, str]) -> bytes:
    """Return headers in wire format."""
    for name, value in headers.items():
        if not value.isprintable() and _CONTROL.search(value):  # `isprintable` is much cheaper
            raise ValueError(f"header {name!r} holds control characters")
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
