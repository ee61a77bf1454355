"""What carries a request to a server and its answer back: bytes on both sides, and no opinion on either.

There are two. `thin` is for the plain case and costs a fifth of the CPU time; `through_aiohttp` is for all
others, proxies above all. Both make one attempt, follow no redirect, keep no cookies, and decompress bodies.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from multidict import CIMultiDict
from yarl import URL


class TransportError(Exception):
    """A request came to nothing; the words may quote the server. `taken`: a server may have taken it."""

    def __init__(self, why: str, *, taken: bool = True) -> None:
        super().__init__(why)
        self.taken = taken


class Answer:
    """A whole HTTP response; `fields` are its headers as they came, decoded only when somebody looks."""

    __slots__ = ("body", "fields", "status")

    def __init__(self, status: int, fields: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        self.status = status
        self.fields = fields
        self.body = body

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, whatever their case."""
        return CIMultiDict(
            (name.decode(errors="replace"), value.decode(errors="replace")) for name, value in self.fields
        )

    @property
    def content_type(self) -> str:
        """What the body is said to be, without parameters."""
        said = self.headers.get("Content-Type", "").partition(";")[0].strip()
        return said or "application/octet-stream"


class Transport(Protocol):
    """Makes single requests of one server, in the running event loop."""

    async def send(self, method: str, url: URL, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Have one request answered.

        Raises:
            Unanswered: if no whole answer came, in time or at all.
        """
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...
