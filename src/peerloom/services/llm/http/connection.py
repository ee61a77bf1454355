"""Send one request at a time over an HTTP/1.1 connection, and parse the response.

Unsolicited data, or data after a response, closes the connection. It is aborted when a request is cancelled
or times out, so that a late response is not taken for that of the next request.
"""

import asyncio
from collections.abc import Callable
from typing import cast

import httptools

from peerloom.services.llm.http.base import HttpResponse, TransportError

MAX_HEAD = 64 * 1024
MAX_RESPONSE = 256 * 1024 * 1024
_JOINED = 256 * 1024  # larger bodies are written separately: copying them would cost more than a write
_SWITCHING = 101

Waiter = asyncio.Future[HttpResponse]


class Disconnected(TransportError):
    """The connection ended before the first byte of the response; the server may have closed it earlier."""


class HttpConnection(asyncio.Protocol):
    """A connection to a server; `released` is called when it may be reused, `lost` when it has ended."""

    __slots__ = (
        "_body",
        "_fields",
        "_has_head",
        "_keep_alive",
        "_lost",
        "_parser",
        "_received",
        "_released",
        "_surplus",
        "_transport",
        "_waiter",
        "idle_since",
        "open",
    )

    def __init__(
        self, released: "Callable[[HttpConnection], None]", lost: "Callable[[HttpConnection], None]"
    ) -> None:
        self._released = released
        self._lost = lost
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(  # for deviations of servers that all clients accept
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._waiter: Waiter | None = None
        self._fields: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._received = 0
        self._has_head = self._keep_alive = self._surplus = False
        self.open = False
        self.idle_since = 0.0

    def send(self, head: bytes, body: bytes, waiter: Waiter) -> None:
        """Write a request; `waiter` gets the response or a `TransportError`."""
        if not self.open:  # closed just now
            waiter.set_exception(Disconnected("disconnected before the answer"))
            return
        self._waiter = waiter
        self._fields, self._body = [], []
        self._received = 0
        self._has_head = self._keep_alive = self._surplus = False
        if len(body) < _JOINED:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)

    def drop(self, waiter: Waiter, why: TransportError | None = None) -> None:
        """Abort the request of `waiter`, unless it has ended; `waiter` gets the error `why`, if any."""
        if self._waiter is waiter:
            self._fail(why)

    def abort(self) -> None:
        """Close at once."""
        self.open = False
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport of the opened connection."""
        self._transport = cast("asyncio.Transport", transport)
        self.open = True

    def data_received(self, data: bytes) -> None:
        """Parse received bytes."""
        if self._idle:
            self.abort()
            return
        self._feed(data)
        if self._idle:
            if self.open:
                self._release()
        elif self._received > MAX_RESPONSE or (not self._has_head and self._received > MAX_HEAD):
            self._fail(TransportError("the answer, or its head, is too large"))

    @property
    def _idle(self) -> bool:
        """Whether no request is outstanding."""
        return self._waiter is None

    def _feed(self, data: bytes) -> None:
        """Pass bytes to the parser, which calls the `on_` methods."""
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._keep_alive = False
            if not self._idle:  # otherwise the data follows a complete response
                cause = error.__context__ if isinstance(error.__context__, _UnsupportedResponse) else error
                self._fail(TransportError(f"no HTTP answer: {cause}"))

    def eof_received(self) -> None:
        """End the response: the server has closed its side."""
        self._ended(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the response: the connection is closed."""
        self._ended(exc)
        self._parser = cast("httptools.HttpResponseParser", None)  # breaks the reference cycle
        self._lost(self)

    def on_message_begin(self) -> None:
        """Handle a status line."""
        if self._waiter is None:
            self._surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Handle a header or trailer."""
        if not self._has_head:
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """Handle the end of the headers, of the final response or of an interim one (status 1xx)."""
        status = self._parser.get_status_code()
        if status == _SWITCHING:
            raise _UnsupportedResponse("it switches to another protocol")
        self._has_head = status >= 200
        if self._has_head and sum(len(name) + len(value) for name, value in self._fields) > MAX_HEAD:
            raise _UnsupportedResponse("its head is too large")

    def on_body(self, data: bytes) -> None:
        """Handle a part of the body."""
        self._body.append(data)

    def on_message_complete(self) -> None:
        """Handle the end of the final response or of an interim one."""
        if not self._has_head:
            self._fields = []
        elif self._waiter is not None:
            self._keep_alive = self._parser.should_keep_alive()
            self._finish()

    def _finish(self) -> None:
        body = self._body
        raw = body[0] if len(body) == 1 else b"".join(body)
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(HttpResponse(self._parser.get_status_code(), self._fields, raw))
        self._fields, self._body = [], []

    def _release(self) -> None:
        """Release the connection for the next request if both sides are in sync; otherwise abort it."""
        in_sync = not self._surplus and not self._transport.get_write_buffer_size()
        if self._keep_alive and self.open and in_sync:
            self._released(self)
        else:
            self.abort()

    def _ended(self, error: Exception | None) -> None:
        """Handle the end of the connection, which also ends a body without a length."""
        self.open = False
        if self._waiter is None:
            self._transport.abort()
        elif error is None and self._has_head and not self._sized():
            self._finish()
            self._transport.abort()
        elif self._has_head:
            self._fail(TransportError("disconnected within the answer"))
        else:
            kind = TransportError if self._received else Disconnected
            self._fail(kind(f"disconnected before the answer{f' ({error})' if error else ''}"))

    def _sized(self) -> bool:
        return any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in self._fields)

    def _fail(self, why: TransportError | None) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and why is not None and not waiter.done():
            waiter.set_exception(why)
        self._fields, self._body = [], []
        self.abort()


class _UnsupportedResponse(Exception):
    """A response that the parser accepts and the client does not."""
