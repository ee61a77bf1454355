"""Serve JSON over a minimal, fast HTTP/1.1 implementation, an `asyncio.Protocol`.

`httptools` (llhttp) parses requests. A connection handles them one at a time, in order. Pipelined requests
wait; above a bound the socket is not read. The sizes of heads and bodies are bounded. A response can be sent
with a flaw, to simulate faulty servers and networks.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from itertools import chain
from typing import NamedTuple, Protocol, cast

import httptools

from peerloom.services.llm.simulated.responses import Response

MAX_HEAD = 64 * 1024
MAX_BODY = 256 * 1024 * 1024
_READ_AHEAD = 256 * 1024
_PIECES = 8  # of a slow response

Due = Callable[[Callable[[], None] | None], None]
"""Called when a reply is due with a function that sends it, to be called at once or soon; or with None if the
client has disconnected."""

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}


class HttpRequest(NamedTuple):
    """An HTTP request. `path` is without the query."""

    method: bytes
    path: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    keep_alive: bool = True

    def header(self, name: bytes) -> bytes:
        """Return the value of a header, by its name in lower case; empty if it is missing."""
        return next((value for each, value in self.headers if each.lower() == name), b"")


class Handler(Protocol):
    """Handles requests, by calling `connection.reply` once for each, at once or later."""

    def __call__(self, request: HttpRequest, connection: "ServerConnection") -> None:
        """Handle one request."""
        ...


class ServerConnection(asyncio.Protocol):
    """The connection of a client, a member of `connections` while open; `lost` is done when it has ended."""

    def __init__(self, handler: Handler, connections: "set[ServerConnection]") -> None:
        self._handler = handler
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self.busy = False  # whether a request is being handled
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[HttpRequest] = deque()
        self._refusal = 0  # the status of the reply to a malformed request, after those that wait
        self._received = self._ahead = (
            0  # bytes of the request being received, and since one is being handled
        )
        self._keep_alive = self._advancing = False
        self._timer: asyncio.TimerHandle | None = None
        self._due: Due | None = None
        self.on_message_begin()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection."""
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Unregister the connection, and report an unsent reply as not sent."""
        self._connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        self.busy = True  # waiting requests are not handled
        due, self._due = self._due, None
        if due is not None:
            due(None)
        if not self.lost.done():  # its waiter may have been cancelled
            self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Parse received bytes, and handle complete requests."""
        if self._refusal:
            return
        self._received += len(data)
        self._feed(data)
        if not self.busy:
            self._advance()
        else:
            self._ahead += len(data)
            if self._ahead > _READ_AHEAD:
                self._transport.pause_reading()

    def close(self) -> None:
        """Close the connection at once."""
        self._transport.abort()

    def reply(self, response: Response, due: Due | None = None) -> None:
        """Answer the current request.

        Args:
            response: the response.
            due: called when the response (or the last piece of a slow one) is due, to send it; by default it
                is sent at once.
        """
        status, body, headers, delay, content_type, closed, trickle = response
        head = b"%bContent-Type: %b\r\nContent-Length: %d\r\n%b\r\n" % (
            _STATUS_LINES[status],
            content_type,
            len(body),
            b"".join(b"%b: %b\r\n" % header for header in headers),
        )
        data = head + body
        self._due = due
        if delay is None:
            return
        if closed:
            ends = {"start": 0, "head": len(head) // 2, "body": (len(head) + len(data)) // 2}
            data = data[: ends[closed]]
            self._keep_alive = False
        if trickle:
            size = -(-len(data) // _PIECES)
            self._timer = self._loop.call_later(delay, self._trickle, data, size, trickle / (_PIECES - 1))
        elif delay or closed:
            self._timer = self._loop.call_later(delay, self._ready, data)
        else:
            self._ready(data)

    def _trickle(self, data: bytes, size: int, pause: float) -> None:
        if len(data) <= size:
            self._ready(data)
        else:
            self._transport.write(data[:size])
            self._timer = self._loop.call_later(pause, self._trickle, data[size:], size, pause)

    def _ready(self, data: bytes) -> None:
        self._timer = None
        due, self._due = self._due, None
        if due is None:
            self._send(data)
        else:
            due(partial(self._send, data))

    def _send(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(data)
        if not self._keep_alive:
            self._transport.close()
            return
        self.busy = False
        if not self._advancing:
            self._advance()

    def _advance(self) -> None:
        """Handle waiting requests until one is not answered at once."""
        self._advancing = True
        while self._waiting and not self.busy:
            request = self._waiting.popleft()
            self.busy, self._keep_alive = True, request.keep_alive
            self._handler(request, self)
        self._advancing = False
        if self.busy:
            return
        if self._refusal:
            self.busy, self._keep_alive = True, False
            self.reply(
                Response(self._refusal, b'{"error": {"message": "malformed or too large HTTP request"}}')
            )
        elif self._ahead:
            self._ahead = 0
            self._transport.resume_reading()

    def _feed(self, data: bytes) -> None:
        """Pass bytes to the parser, which calls the `on_` methods."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:  # no other protocol is supported: it is not upgraded
            self._parser = httptools.HttpRequestParser(self)
            self._feed(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._refusal = error.__context__.args[0] if isinstance(error.__context__, _TooLarge) else 400
        if not self._has_head and self._received > MAX_HEAD:
            self._refusal = self._refusal or 431

    def on_message_begin(self) -> None:
        """Handle the begin of a request."""
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._has_head = False
        self._size = 0

    def on_url(self, url: bytes) -> None:
        """Handle a part of the URL."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Handle a header or trailer."""
        if self._has_head:
            return
        self._headers.append((name, value))
        if len(name) == 14 and name.lower() == b"content-length" and int(value) > MAX_BODY:
            raise _TooLarge(413)
        if len(name) == 6 and name.lower() == b"expect":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_headers_complete(self) -> None:
        """Handle the end of the headers."""
        self._has_head = True
        if self._received > MAX_HEAD and sum(map(len, chain(*self._headers))) > MAX_HEAD:
            raise _TooLarge(431)

    def on_body(self, data: bytes) -> None:
        """Handle a part of the body."""
        self._body.append(data)
        self._size += len(data)
        if self._size > MAX_BODY:
            raise _TooLarge(413)

    def on_message_complete(self) -> None:
        """Handle the end of a request."""
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        path = self._url.partition(b"?")[0]
        keep_alive = self._parser.should_keep_alive()
        self._waiting.append(HttpRequest(self._parser.get_method(), path, self._headers, body, keep_alive))
        self._received = 0


class _TooLarge(Exception):
    """A request that is too large, to be answered with the status."""
