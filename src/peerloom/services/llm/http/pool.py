"""The pool: as many connections as there are requests at once, which admission bounds.

The one used last is used next, so that those too many grow old and are closed. A server may close a free
connection just as a request is written to it: that request is sent again, on a new one, if nothing at all
came back and that within moments; only then is it certain enough that no server has taken it.
"""

import asyncio
import re
from collections import deque
from collections.abc import Mapping
from contextlib import suppress

from yarl import URL

from peerloom.services.llm.http.base import Answer, TransportError
from peerloom.services.llm.http.connection import Connection, Disconnected
from peerloom.services.llm.http.decompression import ACCEPTED, inflated
from peerloom.services.llm.http.dialer import Dialer

KEEPALIVE_SECONDS = 60.0
_STALE_SECONDS = 1.0  # from a request to the news that its connection was closed before
_CLOSE_SECONDS = 1.0
_BROKEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class Http1Transport:
    """Requests to one server, in the running event loop.

    Args:
        base: any URL of it.
        headers: of all requests.
        seconds: for a request, from connecting to the last byte.
        connect_seconds: for opening a connection.
        keepalive_seconds: how long a connection is kept that is not needed.

    Raises:
        ValueError: for a header that would end its line.
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
        self._dialer = Dialer(base)
        self._common = _lines(
            {"Host": base.host_port_subcomponent or "", "Accept-Encoding": ACCEPTED, **headers}
        )
        self._seconds = seconds
        self._connect_seconds = connect_seconds
        self._keepalive = keepalive_seconds
        self._loop = asyncio.get_running_loop()
        self._heads: dict[tuple[str, URL], bytes] = {}
        self._free: deque[Connection] = deque()  # the one used last at the right
        self._all: set[Connection] = set()
        self._empty = asyncio.Event()
        self._reaper: asyncio.TimerHandle | None = None
        self._closed = False

    async def send(self, method: str, url: URL, body: bytes, headers: Mapping[str, str]) -> Answer:
        """See `Transport.send`."""
        head = self._head(method, url, headers, len(body))
        began = self._loop.time()
        until = began + self._seconds
        connection = self._kept(began)
        if connection is not None:
            try:
                return await self._ask(connection, head, body, until)
            except Disconnected:
                if self._loop.time() - began > _STALE_SECONDS:
                    raise
        connection = await self._opened(until)
        return await self._ask(connection, head, body, until)

    async def close(self) -> None:
        """See `Transport.close`."""
        self._closed = True
        if self._reaper is not None:
            self._reaper.cancel()
        self._free.clear()
        for connection in self._all:
            connection.abort()
        if self._all:
            self._empty.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._empty.wait()

    async def _ask(self, connection: Connection, head: bytes, body: bytes, until: float) -> Answer:
        waiter: asyncio.Future[Answer] = self._loop.create_future()
        timer = self._loop.call_at(until, self._late, connection, waiter)
        connection.send(head, body, waiter)
        try:
            return inflated(await waiter)
        except asyncio.CancelledError:
            connection.drop(waiter)
            raise
        finally:
            timer.cancel()

    def _late(self, connection: Connection, waiter: "asyncio.Future[Answer]") -> None:
        connection.drop(waiter, TransportError(f"timeout (no reply in {self._seconds:g} s)"))

    def _head(self, method: str, url: URL, headers: Mapping[str, str], size: int) -> bytes:
        begin = self._heads.get((method, url))
        if begin is None:
            line = f"{method} {url.raw_path_qs} HTTP/1.1\r\n".encode()
            begin = self._heads[method, url] = line + self._common
        sized = b"Content-Length: %d\r\n\r\n" % size if size or method == "POST" else b"\r\n"
        return begin + (_lines(headers) if headers else b"") + sized

    async def _opened(self, until: float) -> Connection:
        left = min(self._connect_seconds, until - self._loop.time())
        connection = await self._dialer.open(lambda: Connection(self._freed, self._lost), max(0.0, left))
        if self._closed:
            connection.abort()
            raise TransportError("the client is closed", taken=False)
        if connection.open:
            self._all.add(connection)
        return connection

    def _kept(self, now: float) -> Connection | None:
        """The free connection that was used last, if there is one; closed ones are forgotten."""
        free = self._free
        while free:
            connection = free.pop()
            if connection.open:
                if now - connection.free_since < self._keepalive:
                    return connection
                connection.abort()
        return None

    def _freed(self, connection: Connection) -> None:
        if self._closed:
            connection.abort()
            return
        connection.free_since = self._loop.time()
        self._free.append(connection)
        if self._reaper is None:
            self._reaper = self._loop.call_later(self._keepalive, self._reap)

    def _reap(self) -> None:
        """Close what nobody has needed for long, and look again when the next one is due."""
        free, now = self._free, self._loop.time()
        self._reaper = None
        while free and (not free[0].open or now - free[0].free_since >= self._keepalive):
            free.popleft().abort()
        if free:
            self._reaper = self._loop.call_at(free[0].free_since + self._keepalive, self._reap)

    def _lost(self, connection: Connection) -> None:
        self._all.discard(connection)
        if not self._all:
            self._empty.set()


def _lines(headers: Mapping[str, str]) -> bytes:
    """Headers as they are sent."""
    for name, value in headers.items():
        if not value.isprintable() and _BROKEN.search(value):  # the first is nearly free
            raise ValueError(f"header {name!r} holds control characters")
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
