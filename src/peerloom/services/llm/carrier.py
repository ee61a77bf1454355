"""What carries a request to a server and its answer back: bytes on both sides, and no opinion on either.

There are two. `thin` is for the plain case and costs a fifth of the CPU time; `AiohttpCarrier` is for all
others, proxies above all. Both make one attempt, follow no redirect, keep no cookies, inflate nothing.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Protocol

import aiohttp
from multidict import CIMultiDict
from yarl import URL

_NOT_TAKEN = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
_BIG_BODY = 1 << 20  # aiohttp wants larger bodies as files, so that it can write them piecewise


class Unanswered(Exception):
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


class Carrier(Protocol):
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


class AiohttpCarrier:
    """Requests by aiohttp. `seconds` is the session's timeout, for messages."""

    def __init__(self, session: aiohttp.ClientSession, seconds: float) -> None:
        self._session = session
        self._seconds = seconds

    async def send(self, method: str, url: URL, body: bytes, headers: Mapping[str, str]) -> Answer:
        """See `Carrier.send`."""
        data = aiohttp.BytesPayload(body) if len(body) < _BIG_BODY else io.BytesIO(body)
        try:
            async with self._session.request(
                method, url, data=data if body else None, headers=headers, allow_redirects=False
            ) as response:
                return Answer(response.status, response.raw_headers, await response.read())
        except TimeoutError as error:
            why = f"timeout ({str(error) or f'no reply in {self._seconds:g} s'})"
            raise Unanswered(why, taken=not isinstance(error, _NOT_TAKEN)) from error
        except (aiohttp.ClientError, OSError) as error:
            why = f"{type(error).__name__}: {error}"
            raise Unanswered(why, taken=not isinstance(error, _NOT_TAKEN)) from error

    async def close(self) -> None:
        """See `Carrier.close`."""
        await self._session.close()
