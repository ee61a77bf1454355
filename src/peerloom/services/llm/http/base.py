"""Define the protocol and the types of HTTP transports.

There are two transports: `Http1Transport`, which is cheap in CPU time, and `AiohttpTransport`, which supports
proxies. Both make a single attempt, follow no redirects, keep no cookies, and decompress bodies.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from multidict import CIMultiDict
from yarl import URL


class TransportError(Exception):
    """A request without a response. `taken` is whether a server may have accepted it."""

    def __init__(self, why: str, *, taken: bool = True) -> None:
        super().__init__(why)
        self.taken = taken


class HttpResponse:
    """A complete HTTP response; `fields` are its raw headers, decoded on access."""

    __slots__ = ("body", "fields", "status")

    def __init__(self, status: int, fields: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        self.status = status
        self.fields = fields
        self.body = body

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, by case-insensitive name."""
        return CIMultiDict(
            (name.decode(errors="replace"), value.decode(errors="replace")) for name, value in self.fields
        )

    @property
    def content_type(self) -> str:
        """The media type of the body, without parameters."""
        media_type = self.headers.get("Content-Type", "").partition(";")[0].strip()
        return media_type or "application/octet-stream"


class Transport(Protocol):
    """Sends single requests to one server, in the running event loop."""

    async def send(self, method: str, url: URL, body: bytes, headers: Mapping[str, str]) -> HttpResponse:
        """Send one request and return the response.

        Raises:
            TransportError: if no complete response arrived in time.
        """
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...
