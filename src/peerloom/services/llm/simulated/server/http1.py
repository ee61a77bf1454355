"""Serve JSON over a minimal, fast HTTP/1.1 implementation, an `asyncio.Protocol`.

A connection handles its requests one at a time, in order. Pipelined requests wait in the buffer; above a
bound the socket is not read. Bodies may be sized or chunked. The sizes of heads and bodies are bounded. A
response can be sent with a flaw, to simulate faulty servers and networks.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Literal, NamedTuple, Protocol, cast

MAX_HEAD = 64 * 1024
MAX_BODY = 256 * 1024 * 1024
_READ_AHEAD = 256 * 1024
_PIECES = 8  # of a slow response

Due = Callable[[Callable[[], None] | None], None]
"""Called when a reply is due with a function that sends it, to be called at once or soon; or with None if the
client has disconnected."""

_HEADS = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n".encode()
    for status in HTTPStatus
}


class Flaw(NamedTuple):
    """A fault in sending a response.

    `closed` is the place at which the connection is closed: before the first byte, or in the middle of the
    head or of the body. `trickle` is the time from the first to the last piece, in seconds. `html` is whether
    the content type is HTML.
    """

    closed: Literal["", "start", "head", "body"] = ""
    trickle: float = 0.0
    html: bool = False


class HttpRequest(NamedTuple):
    """An HTTP request. `path` is without the query; `head` is the raw request line and headers."""

    method: bytes
    path: bytes
    head: bytes
    body: bytes

    def header(self, name: bytes) -> bytes:
        """Return the value of a header, by its name in lower case; empty if it is missing."""
        return _after(b"\r\n" + name + b":", self.head, self.head.lower())


class Handler(Protocol):
    """Handles requests, by calling `connection.reply` once for each, at once or later."""

    def __call__(self, request: HttpRequest, connection: "ServerConnection") -> None:
        """Handle one request."""
        ...


class _Malformed(Exception):
    """An invalid request, to be answered with the status."""

    def __init__(self, status: int) -> None:
        self.status = status


class _Head(NamedTuple):
    """A request line and headers. `size` is that of the body; None if it is chunked."""

    method: bytes
    path: bytes
    raw: bytes
    size: int | None
    close: bool


class ServerConnection(asyncio.Protocol):
    """The connection of a client, a member of `connections` while open; `lost` is done when it has ended."""

    def __init__(self, handler: Handler, connections: "set[ServerConnection]") -> None:
        self._handler = handler
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self._buffer = bytearray()
        self._head: _Head | None = None
        self._chunks: list[bytes] = []
        self._chunked = 0  # bytes in the chunks
        self._busy = False  # whether a request is being handled
        self._parsing = False
        self._timer: asyncio.TimerHandle | None = None
        self._due: Due | None = None
        self._flaw: Flaw | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection."""
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Unregister the connection, and report an unsent reply as not sent."""
        self._connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        self._busy = True  # requests in the buffer are not handled
        due, self._due = self._due, None
        if due is not None:
            due(None)
        if not self.lost.done():  # its waiter may have been cancelled
            self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Add received bytes to the buffer, and handle complete requests."""
        self._buffer += data
        if not self._busy:
            self._advance()
        elif len(self._buffer) > _READ_AHEAD:
            self._transport.pause_reading()

    @property
    def busy(self) -> bool:
        """Whether a request is being handled."""
        return self._busy

    def close(self) -> None:
        """Close the connection at once."""
        self._transport.abort()

    def reply(
        self,
        status: int,
        body: bytes,
        *,
        headers: bytes = b"",
        delay: float | None = 0.0,
        due: Due | None = None,
        flaw: Flaw | None = None,
    ) -> None:
        """Answer the current request.

        Args:
            status: the status of the response.
            body: the JSON body.
            headers: further header lines, each ended by CRLF.
            delay: the seconds until the response is due; None for never.
            due: called when the response (or the last piece of a slow one) is due, to send it; by default it
                is sent at once.
            flaw: the fault in sending the response.
        """
        data = b"%bContent-Length: %d\r\n%b\r\n%b" % (_HEADS[status], len(body), headers, body)
        self._due = due
        if flaw is not None and delay is not None:
            self._reply_flawed(data, delay, flaw)
        elif delay:
            self._timer = self._loop.call_later(delay, self._ready, data)
        elif delay is not None:
            self._ready(data)

    def _reply_flawed(self, data: bytes, delay: float, flaw: Flaw) -> None:
        head = data.index(b"\r\n\r\n") + 4
        if flaw.html:
            data = data.replace(b"application/json", b"text/html", 1)
        if flaw.closed:
            self._flaw = flaw
            ends = {"start": 0, "head": head // 2, "body": (head + len(data)) // 2}
            self._timer = self._loop.call_later(delay, self._ready, data[: ends[flaw.closed]])
        elif flaw.trickle:
            size = -(-len(data) // _PIECES)
            pause = flaw.trickle / (_PIECES - 1)
            self._timer = self._loop.call_later(delay, self._trickle, data, size, pause)
        else:
            self._timer = self._loop.call_later(delay, self._ready, data)

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
        head, self._head = self._head, None
        if head is None or head.close or self._flaw is not None:
            self._transport.close()
            return
        self._busy = False
        if self._buffer and not self._parsing:
            self._transport.resume_reading()
            self._advance()

    def _advance(self) -> None:
        """Handle complete requests from the buffer until one is not answered at once."""
        self._parsing = True
        try:
            while self._buffer and not self._busy:
                if self._head is None and not self._read_head():
                    return
                body = self._read_body()
                head = self._head
                if body is None or head is None:
                    return
                self._busy = True
                self._handler(HttpRequest(head.method, head.path, head.raw, body), self)
        except _Malformed as error:
            self._busy = True
            self._head = None  # so that the connection closes after the reply
            self.reply(error.status, b'{"error": {"message": "malformed or too large HTTP request"}}')
        finally:
            self._parsing = False

    def _read_head(self) -> bool:
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n")
        if end > MAX_HEAD or (end < 0 and len(buffer) > MAX_HEAD):
            raise _Malformed(431)
        if end < 0:
            return False
        raw = bytes(buffer[: end + 2])
        del buffer[: end + 4]
        self._head = head = _parsed(raw)
        if head.size is None:
            self._chunks, self._chunked = [], 0
        if len(buffer) < (head.size or 1) and b"\r\nexpect:" in raw.lower():
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _read_body(self) -> bytes | None:
        """Return the body, or None if it is incomplete."""
        head = self._head
        if head is None or head.size is None:
            return self._read_chunks()
        if len(self._buffer) < head.size:
            return None
        body = bytes(self._buffer[: head.size])
        del self._buffer[: head.size]
        return body

    def _read_chunks(self) -> bytes | None:
        buffer = self._buffer
        while (line := buffer.find(b"\r\n")) >= 0:
            size = _number(bytes(buffer[:line]).partition(b";")[0], 16)
            if self._chunked + size > MAX_BODY:
                raise _Malformed(413)
            if size == 0:
                end = buffer.find(b"\r\n\r\n", line)  # trailers are skipped
                if end < 0:
                    break
                del buffer[: end + 4]
                return b"".join(self._chunks)
            if len(buffer) < line + 4 + size:
                return None
            self._chunks.append(bytes(buffer[line + 2 : line + 2 + size]))
            self._chunked += size
            del buffer[: line + 4 + size]
        if len(buffer) > MAX_HEAD:
            raise _Malformed(400)
        return None


def _parsed(raw: bytes) -> _Head:
    words = raw[: raw.index(b"\r\n")].split(b" ")
    if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
        raise _Malformed(400)
    lower = raw.lower()
    size: int | None
    if b"\r\ntransfer-encoding:" in lower:
        size = None
    else:
        size = _number(_after(b"\r\ncontent-length:", raw, lower) or b"0", 10)
        if size > MAX_BODY:
            raise _Malformed(413)
    close = words[2] == b"HTTP/1.0" or b"\r\nconnection: close\r\n" in lower
    return _Head(words[0], words[1].partition(b"?")[0], raw, size, close)


def _after(needle: bytes, raw: bytes, lower: bytes) -> bytes:
    """Return the rest of the line after `needle` in `raw`; empty if `lower`, its lower case, lacks it."""
    at = lower.find(needle)
    if at < 0:
        return b""
    begin = at + len(needle)
    return raw[begin : raw.index(b"\r\n", begin)].strip()


def _number(digits: bytes, base: int) -> int:
    try:
        number = int(digits, base)
    except ValueError as error:
        raise _Malformed(400) from error
    if number < 0:
        raise _Malformed(400)
    return number
