"""One replica behind HTTP: bytes go out, bytes come back, and a dialect says what both mean.

The path of a call is short, because its CPU time is most of what the framework costs: the body goes out
as bytes and comes back whole, and nothing is parsed but the reply. The pool is `endpoint`'s.
"""

import io
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import aiohttp
import orjson

from peerloom.errors import LLMError
from peerloom.services.llm.base import ChatReply, ChatRequest, EmbedReply, EmbedRequest
from peerloom.services.llm.dialect import Dialect, MalformedBody, Post
from peerloom.services.llm.endpoint import Endpoint
from peerloom.services.llm.failures import error_in, trimmed
from peerloom.services.llm.retry import Retryable

Read = TypeVar("Read")

_NOT_TAKEN = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
_BIG_BODY = 1 << 20  # aiohttp wants larger bodies as files, so that it can write them piecewise
_HEALTH_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class HttpDial:
    """Reaches replicas by their base URLs. Picklable.

    Args:
        endpoint: key and timeouts; its own base URL does not count.
        dialect: how they are spoken to.
        model: its name there.
    """

    endpoint: Endpoint
    dialect: Dialect
    model: str

    def __call__(self, name: str) -> "HttpBackend":
        """The replica at that base URL."""
        return HttpBackend(replace(self.endpoint, base_url=name), self.dialect, self.model)


class HttpBackend:
    """Makes single attempts at one endpoint, in the running event loop.

    Args:
        endpoint: where the server is.
        dialect: how it is spoken to.
        model: its name there.
    """

    def __init__(self, endpoint: Endpoint, dialect: Dialect, model: str) -> None:
        self._endpoint = endpoint
        self._dialect = dialect
        self._model = model
        key = endpoint.api_key
        self._session = endpoint.open_session(dialect.auth(key) if key is not None else {})
        self._urls: dict[str, Any] = {}

    async def chat(self, request: ChatRequest, attempt: int) -> ChatReply:
        """See `Backend.chat`."""
        post = self._dialect.chat(request, self._model)
        try:
            return await self._exchange(post, request, self._dialect.reply)
        except (Retryable, LLMError) as error:
            self._hide_key(error)
            raise

    async def embed(self, request: EmbedRequest, attempt: int) -> EmbedReply:
        """See `Backend.embed`."""
        post = self._dialect.embed(request, self._model)
        try:
            return await self._exchange(post, request, self._dialect.vectors)
        except (Retryable, LLMError) as error:
            self._hide_key(error)
            raise

    async def healthy(self) -> bool:
        """Whether the server lists its models; also if it only does not have that list."""
        timeout = aiohttp.ClientTimeout(total=_HEALTH_SECONDS)
        url = self._endpoint.url(self._dialect.models_path)
        try:
            async with self._session.get(url, timeout=timeout, allow_redirects=False) as response:
                return response.status < 500 and response.status != 429
        except (TimeoutError, aiohttp.ClientError, OSError):
            return False

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    def _hide_key(self, error: Exception) -> None:
        """Take the key out of an error's words: servers quote it anywhere."""
        hidden = self._endpoint.hidden
        error.args = tuple(
            hidden(word.encode()).decode() if isinstance(word, str) else word for word in error.args
        )

    async def _exchange(self, post: Post, request: Any, read: Callable[[Any, Any, float], Read]) -> Read:
        begin = time.perf_counter()
        url = self._urls.get(post.path)
        if url is None:
            url = self._urls[post.path] = self._endpoint.url(post.path)
        body = post.body
        data = aiohttp.BytesPayload(body) if len(body) < _BIG_BODY else io.BytesIO(body)
        try:
            async with self._session.post(
                url, data=data, headers=post.headers, allow_redirects=False
            ) as response:
                raw = await response.read()
        except TimeoutError as error:
            why = f"timeout ({str(error) or f'no reply in {self._endpoint.timeout:g} s'})"
            raise Retryable(why, taken=not isinstance(error, _NOT_TAKEN)) from error
        except (aiohttp.ClientError, OSError) as error:
            words = self._endpoint.hidden(str(error).encode()).decode(
                errors="replace"
            )  # may quote the server
            why = f"{type(error).__name__}: {trimmed(words)}"
            raise Retryable(why, taken=not isinstance(error, _NOT_TAKEN)) from error
        if response.status != 200:
            hidden = self._endpoint.hidden(raw)
            raise self._dialect.failure(response.status, response.headers, hidden, time.time())
        try:
            return read(orjson.loads(raw), request, time.perf_counter() - begin)
        except (orjson.JSONDecodeError, MalformedBody) as error:
            raise self._not_a_reply(response, raw, error) from error

    def _not_a_reply(self, response: aiohttp.ClientResponse, raw: bytes, error: Exception) -> Exception:
        """What a 200 without a reply means; some gateways send an upstream's error that way."""
        safe = self._endpoint.hidden(raw)
        status = error_in(safe).get("code")
        if isinstance(status, int) and 400 <= status < 600:
            return self._dialect.failure(status, response.headers, safe, time.time())
        start = trimmed(safe[:120].decode(errors="replace"))
        return Retryable(f"HTTP 200 with an invalid body ({response.content_type}; {error}): {start!r}")
