"""One replica behind HTTP: bytes go out, bytes come back, and a dialect says what both mean.

The path of a call is short, because its CPU time is most of what the framework costs: the body goes out
as bytes and comes back whole, and nothing is parsed but the reply. What carries them is `endpoint`'s.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import orjson

from peerloom.errors import LLMError
from peerloom.services.llm.base import ChatReply, ChatRequest, EmbedReply, EmbedRequest
from peerloom.services.llm.carrier import Answer, Unanswered
from peerloom.services.llm.dialect import Dialect, MalformedBody, Post
from peerloom.services.llm.endpoint import Endpoint
from peerloom.services.llm.failures import error_in, trimmed
from peerloom.services.llm.payloads import payload_of
from peerloom.services.llm.retry import Retryable
from peerloom.services.llm.wire import usage_of

Read = TypeVar("Read")

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
        self._carrier = endpoint.open_carrier(dialect.auth(key) if key is not None else {})
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
        url = self._endpoint.url(self._dialect.models_path)
        try:
            async with asyncio.timeout(_HEALTH_SECONDS):
                answer = await self._carrier.send("GET", url, b"", {})
        except (TimeoutError, Unanswered):
            return False
        return answer.status < 500 and answer.status != 429

    async def close(self) -> None:
        """Close all connections."""
        await self._carrier.close()

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
        try:
            answer = await self._carrier.send("POST", url, post.body, post.headers)
        except Unanswered as error:
            words = self._endpoint.hidden(str(error).encode(errors="replace")).decode()
            raise Retryable(trimmed(words), taken=error.taken) from error
        if answer.status != 200:
            hidden = self._endpoint.hidden(answer.body)
            raise self._dialect.failure(answer.status, answer.headers, hidden, time.time())
        try:
            payload = payload_of(answer.body)
        except MalformedBody as error:
            raise self._not_a_reply(answer, None, error) from error
        try:
            return read(payload, request, time.perf_counter() - begin)
        except MalformedBody as error:
            raise self._not_a_reply(answer, payload, error) from error

    def _not_a_reply(self, answer: Answer, payload: Any, error: Exception) -> Exception:
        """What a 200 without a reply means; some gateways send an upstream's error that way."""
        safe = self._endpoint.hidden(answer.body if payload is None else orjson.dumps(payload))
        status = error_in(safe).get("code")
        if isinstance(status, int) and 400 <= status < 600:
            return self._dialect.failure(status, answer.headers, safe, time.time())
        start, usage = trimmed(safe[:120].decode(errors="replace")), usage_of(_field(payload, "usage"))
        return Retryable(
            f"HTTP 200 with an invalid body ({answer.content_type}; {error}): {start!r}", usage=usage
        )


def _field(payload: Any, name: str) -> Any:
    return cast("dict[str, Any]", payload).get(name) if isinstance(payload, dict) else None
