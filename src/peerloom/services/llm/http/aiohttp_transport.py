"""Send requests by aiohttp, which supports proxies."""

import io
from collections.abc import Mapping

import aiohttp
from yarl import URL

from peerloom.services.llm.http.base import HttpResponse, TransportError
from peerloom.services.llm.http.connector import tls_context
from peerloom.services.llm.http.decompression import ACCEPTED, decompressed
from peerloom.services.llm.http.endpoint import JSON, Endpoint
from peerloom.services.llm.http.pool import KEEPALIVE_SECONDS

_NOT_TAKEN = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
_BIG_BODY = 1 << 20  # aiohttp expects larger bodies as files, which it writes in chunks
_DNS_SECONDS = 300


def open_session(endpoint: Endpoint, headers: Mapping[str, str]) -> aiohttp.ClientSession:
    """Return a session for one server, for the running event loop; `headers` contain the key."""
    tls = tls_context() if URL(endpoint.base_url).scheme == "https" else True
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0,
            keepalive_timeout=KEEPALIVE_SECONDS,
            ttl_dns_cache=_DNS_SECONDS,
            ssl=tls,
        ),
        headers={**JSON, "Accept-Encoding": ACCEPTED, **headers},
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=endpoint.timeout, sock_connect=endpoint.connect_timeout),
        proxy=endpoint.proxy,
    )


async def read_response(response: aiohttp.ClientResponse) -> HttpResponse:
    """Read a complete response, and decompress its body."""
    return decompressed(HttpResponse(response.status, response.raw_headers, await response.read()))


class AiohttpTransport:
    """Sends requests by aiohttp. `seconds` is the session's timeout, for messages."""

    def __init__(self, session: aiohttp.ClientSession, seconds: float) -> None:
        self._session = session
        self._seconds = seconds

    async def send(self, method: str, url: URL, body: bytes, headers: Mapping[str, str]) -> HttpResponse:
        """Send one request and return the response; see `Transport.send`."""
        data = aiohttp.BytesPayload(body) if len(body) < _BIG_BODY else io.BytesIO(body)
        try:
            async with self._session.request(
                method, url, data=data if body else None, headers=headers, allow_redirects=False
            ) as response:
                return await read_response(response)
        except TimeoutError as error:
            why = f"timeout ({str(error) or f'no reply in {self._seconds:g} s'})"
            raise TransportError(why, taken=not isinstance(error, _NOT_TAKEN)) from error
        except (aiohttp.ClientError, OSError) as error:
            why = f"{type(error).__name__}: {error}"
            raise TransportError(why, taken=not isinstance(error, _NOT_TAKEN)) from error

    async def close(self) -> None:
        """Close the session."""
        await self._session.close()
