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


class AiohttpTransport:
    """Sends requests to the server of `endpoint`; `headers` contain the key."""

    def __init__(self, endpoint: Endpoint, headers: Mapping[str, str]) -> None:
        self._seconds = endpoint.timeout
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                keepalive_timeout=KEEPALIVE_SECONDS,
                ttl_dns_cache=_DNS_SECONDS,
                ssl=tls_context() if URL(endpoint.base_url).scheme == "https" else True,
            ),
            headers={**JSON, "Accept-Encoding": ACCEPTED, **headers},
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=endpoint.timeout, sock_connect=endpoint.connect_timeout),
            proxy=endpoint.proxy,
        )

    async def send(self, method: str, url: URL, body: bytes, headers: Mapping[str, str]) -> HttpResponse:
        """Send one request and return the response; see `Transport.send`."""
        data = aiohttp.BytesPayload(body) if len(body) < _BIG_BODY else io.BytesIO(body)
        try:
            async with self._session.request(
                method, url, data=data if body else None, headers=headers, allow_redirects=False
            ) as response:
                body = await response.read()
                return decompressed(HttpResponse(response.status, response.raw_headers, body))
        except TimeoutError as error:
            why = f"timeout ({str(error) or f'no reply in {self._seconds:g} s'})"
            raise TransportError(why, taken=not isinstance(error, _NOT_TAKEN)) from error
        except (aiohttp.ClientError, OSError) as error:
            why = f"{type(error).__name__}: {error}"
            raise TransportError(why, taken=not isinstance(error, _NOT_TAKEN)) from error

    async def close(self) -> None:
        """Close the session."""
        await self._session.close()
