"""One connection: a request is written, its answer is read whole, and then it is free for the next.

Never more than one request is under way, so whatever arrives without one, or behind an answer, closes the
connection. Once its waiter has gone, or its time is up, it is aborted: an answer that nobody takes must not
meet the next request.
"""

import asyncio
from collections.abc import Callable
from typing import cast

import httptools

from peerloom.services.llm.http.base import Answer, TransportError

MAX_HEAD = 64 * 1024
MAX_ANSWER = 256 * 1024 * 1024
_WHOLE = 256 * 1024  # larger bodies are written apart from their head: the copy would cost more than a write
_SWITCHING = 101

Waiter = asyncio.Future[Answer]


class Disconnected(TransportError):
    """The connection ended before a single byte of the answer: it may be that the server had closed it."""


class Connection(asyncio.Protocol):
    """A connection to a server; `free` is called when it may be used again, `lost` when it is gone."""

    __slots__ = (
        "_body",
        "_fed",
        "_fields",
        "_free",
        "_headed",
        "_keep",
        "_lost",
        "_parser",
        "_surplus",
        "_transport",
        "_waiter",
        "free_since",
        "open",
    )

    def __init__(self, free: "Callable[[Connection], None]", lost: "Callable[[Connection], None]") -> None:
        self._free = free
        self._lost = lost
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(  # what servers do and every client takes
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._waiter: Waiter | None = None
        self._fields: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._fed = 0
        self._headed = self._keep = self._surplus = False
        self.open = False
        self.free_since = 0.0

    def send(self, head: bytes, body: bytes, waiter: Waiter) -> None:
        """Write a request; `waiter` gets its answer, or `TransportError`."""
        if not self.open:  # since a moment ago
            waiter.set_exception(Disconnected("disconnected before the answer"))
            return
        self._waiter = waiter
        self._fields, self._body = [], []
        self._fed = 0
        self._headed = self._keep = self._surplus = False
        if len(body) < _WHOLE:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)

    def drop(self, waiter: Waiter, why: TransportError | None = None) -> None:
        """Give up the request of `waiter`, unless it is over; it is told `why`."""
        if self._waiter is waiter:
            self._fail(why)

    def abort(self) -> None:
        """Close at once."""
        self.open = False
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        self._transport = cast("asyncio.Transport", transport)
        self.open = True

    def data_received(self, data: bytes) -> None:
        """Bytes, at any cut."""
        if self._idle:
            self.abort()
            return
        self._feed(data)
        if self._idle:
            if self.open:
                self._over()
        elif self._fed > MAX_ANSWER or (not self._headed and self._fed > MAX_HEAD):
            self._fail(TransportError("the answer, or its head, is too large"))

    @property
    def _idle(self) -> bool:
        """Whether nobody waits for an answer."""
        return self._waiter is None

    def _feed(self, data: bytes) -> None:
        """Have it parsed, which calls the methods below."""
        self._fed += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._keep = False
            if not self._idle:  # else it is only what comes behind the answer
                said = error.__context__ if isinstance(error.__context__, _TooMuch) else error
                self._fail(TransportError(f"no HTTP answer: {said}"))

    def eof_received(self) -> None:
        """The server sends nothing more."""
        self._ended(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._ended(exc)
        self._parser = cast("httptools.HttpResponseParser", None)  # which holds this object's methods
        self._lost(self)

    def on_message_begin(self) -> None:
        """The parser: a status line."""
        if self._waiter is None:
            self._surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """The parser: a header, or a trailer."""
        if not self._headed:
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """The parser: the head is whole. Some say first that they go on."""
        status = self._parser.get_status_code()
        if status == _SWITCHING:
            raise _TooMuch("it switches to another protocol")
        self._headed = status >= 200
        if self._headed and sum(len(name) + len(value) for name, value in self._fields) > MAX_HEAD:
            raise _TooMuch("its head is too large")

    def on_body(self, data: bytes) -> None:
        """The parser: some of the body."""
        self._body.append(data)

    def on_message_complete(self) -> None:
        """The parser: the answer is whole, or an interim one was."""
        if not self._headed:
            self._fields = []
        elif self._waiter is not None:
            self._keep = self._parser.should_keep_alive()
            self._finish()

    def _finish(self) -> None:
        body = self._body
        raw = body[0] if len(body) == 1 else b"".join(body)
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(Answer(self._parser.get_status_code(), self._fields, raw))
        self._fields, self._body = [], []

    def _over(self) -> None:
        """After an answer: on to the next request, if both sides are where they should be."""
        if self._keep and not self._surplus and self.open and not self._transport.get_write_buffer_size():
            self._free(self)
        else:
            self.abort()

    def _ended(self, error: Exception | None) -> None:
        """The server has closed. A body without a length ends so."""
        self.open = False
        if self._waiter is None:
            self._transport.abort()
        elif error is None and self._headed and not self._sized():
            self._finish()
            self._transport.abort()
        elif self._headed:
            self._fail(TransportError("disconnected within the answer"))
        else:
            kind = TransportError if self._fed else Disconnected
            self._fail(kind(f"disconnected before the answer{f' ({error})' if error else ''}"))

    def _sized(self) -> bool:
        return any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in self._fields)

    def _fail(self, why: TransportError | None) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and why is not None and not waiter.done():
            waiter.set_exception(why)
        self._fields, self._body = [], []
        self.abort()


class _TooMuch(Exception):
    """The parser cannot say this itself."""
