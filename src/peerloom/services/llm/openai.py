"""Any server that speaks OpenAI's chat completions.

The path of a call is short, because its CPU time is most of what the framework costs: the body goes out
as bytes and comes back whole, and nothing is parsed but the reply. The pool is `endpoint`'s. What may
pass is retried (`retry`), what may not ends the task (`failures`).
"""

import asyncio
import io
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import aiohttp
import orjson

from peerloom.errors import ConfigError
from peerloom.services.llm.base import ChatReply, ChatRequest
from peerloom.services.llm.dialect import MalformedBody
from peerloom.services.llm.dialects.openai import OpenAIDialect
from peerloom.services.llm.endpoint import Endpoint
from peerloom.services.llm.failures import error_in, failure_of, trimmed
from peerloom.services.llm.preflight import choose_model
from peerloom.services.llm.retry import Retrier, Retry, Retryable
from peerloom.services.llm.wire import Structured, to_body, to_reply, wraps
from peerloom.services.secret import Secret
from peerloom.services.spawn import Spawner

OPENAI_URL = "https://api.openai.com/v1"

Shape = Callable[[dict[str, Any], ChatRequest], dict[str, Any]]
"""Changes a body for a server with fields of its own: `shape(body, request)` returns what is sent."""

_NOT_TAKEN = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
_BIG_BODY = 1 << 20  # aiohttp wants larger bodies as files, so that it can write them piecewise


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAISpec(Endpoint):
    """A model on a server and how to ask it; makes the clients.

    Args:
        model: its name there.
        retry: how persistent to be.
        structured: how choices and schemas are asked for, see `wire.Structured`.
        extra_body: further keys of every body, as this server understands them.
        shape: last change to each body; a module-level function, since this is pickled.

    Raises:
        ConfigError: for an impossible `base_url` or `structured`.
    """

    model: str
    retry: Retry = field(default_factory=Retry)
    structured: Structured = "auto"
    extra_body: Mapping[str, Any] = field(default_factory=dict[str, Any])
    shape: Shape | None = None

    def __post_init__(self) -> None:
        Endpoint.__post_init__(self)
        if self.structured not in get_args(Structured):
            known = ", ".join(get_args(Structured))
            raise ConfigError(f"llm.structured is {self.structured!r}: use one of {known}")

    @property
    def limit_field(self) -> str:
        """What the server calls the token limit; OpenAI itself refuses the name everybody else reads."""
        theirs = (self.url("").host or "").endswith((".openai.com", ".openai.azure.com"))
        return "max_completion_tokens" if theirs else "max_tokens"

    def connect(self, *, concurrency: int) -> "OpenAIClient":
        """A client with room for `concurrency` connections. Call it in a running event loop."""
        return OpenAIClient(self, concurrency=concurrency)


class OpenAIClient:
    """Calls one model; see `OpenAISpec`. `sleep` waits between attempts, and is there for tests."""

    def __init__(
        self,
        spec: OpenAISpec,
        *,
        concurrency: int,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._spec = spec
        self._url = spec.url("/chat/completions")
        self._session = spec.open_session(
            concurrency, OpenAIDialect().auth(spec.api_key) if spec.api_key else {}
        )
        self._retrier = Retrier(spec.retry, spec.shown("/chat/completions"), sleep=sleep)
        self._limit_field = spec.limit_field

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Answer one request.

        Raises:
            LLMUnavailable: when attempts or time are used up.
            LLMRejected: if the server refuses the request.
            ContextExceeded: if the prompt is too long for the model.
            ContentFiltered: if the provider withholds the reply.
        """
        began = time.monotonic()
        body = orjson.dumps(self._body(request))
        headers = {"X-Session-ID": request.session} if request.session else None
        try:
            return await self._attempt(request, body, headers)
        except Retryable as failure:
            return await self._retrier.again(failure, began, self._attempt, request, body, headers)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        spec = self._spec
        body = to_body(request, spec.model, spec.structured, self._limit_field)
        body.update(spec.extra_body)
        return body if spec.shape is None else spec.shape(body, request)

    async def _attempt(self, request: ChatRequest, body: bytes, headers: dict[str, str] | None) -> ChatReply:
        begin = time.perf_counter()
        data = aiohttp.BytesPayload(body) if len(body) < _BIG_BODY else io.BytesIO(body)
        try:
            async with self._session.post(
                self._url, data=data, headers=headers, allow_redirects=False
            ) as response:
                raw = await response.read()
        except TimeoutError as error:
            why = f"timeout ({str(error) or f'no reply in {self._spec.timeout:g} s'})"
            raise Retryable(why, taken=not isinstance(error, _NOT_TAKEN)) from error
        except (aiohttp.ClientError, OSError) as error:
            why = f"{type(error).__name__}: {error}"
            raise Retryable(why, taken=not isinstance(error, _NOT_TAKEN)) from error
        if response.status != 200:
            raise failure_of(response.status, response.headers, self._spec.hidden(raw), time.time())
        try:
            wrapped = wraps(request, self._spec.structured)
            seconds = time.perf_counter() - begin
            return to_reply(orjson.loads(raw), request, wrapped=wrapped, seconds=seconds)
        except (orjson.JSONDecodeError, MalformedBody) as error:
            raise self._not_a_reply(response, raw, error) from error

    def _not_a_reply(self, response: aiohttp.ClientResponse, raw: bytes, error: Exception) -> Exception:
        """What a 200 without a completion means; some gateways send an upstream's error that way."""
        safe = self._spec.hidden(raw)
        status = error_in(safe).get("code")
        if isinstance(status, int) and 400 <= status < 600:
            return failure_of(status, response.headers, safe, time.time())
        start = trimmed(safe[:120].decode(errors="replace"))
        return Retryable(f"HTTP 200 with an invalid body ({response.content_type}; {error}): {start!r}")


class OpenAIService:
    """An OpenAI-compatible server that somebody else runs.

    Args:
        base_url: up to and including `/v1`; default `OPENAI_BASE_URL`, else OpenAI itself.
        model: default the first that the server lists.
        api_key: default `OPENAI_API_KEY`, else none.
        timeout: see `Endpoint`.
        connect_timeout: see `Endpoint`.
        retry: see `OpenAISpec`.
        structured: see `OpenAISpec`.
        extra_body: see `OpenAISpec`.

    Raises:
        ConfigError: for an impossible `base_url` or `structured`.
    """

    def __init__(
        self,
        *,
        base_url: str | None = None,
        model: str | None = None,
        api_key: Secret | str | None = None,
        timeout: float = 600.0,
        connect_timeout: float = 10.0,
        retry: Retry | None = None,
        structured: Structured = "auto",
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        key = Secret(api_key) if isinstance(api_key, str) else api_key
        self._model = model
        self._spec = OpenAISpec(
            base_url=base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL,
            model=model or "",
            api_key=key or Secret.from_env("OPENAI_API_KEY"),
            timeout=timeout,
            connect_timeout=connect_timeout,
            retry=retry or Retry(),
            structured=structured,
            extra_body=dict(extra_body or {}),
        )

    async def start(self, spawner: Spawner, notify: Callable[[str], None], log_dir: Path) -> OpenAISpec:
        """Check that the server answers and has the model; nothing is started.

        Raises:
            ServiceError: saying what is wrong: the address, the key or the model's name.
        """
        model = await choose_model(self._spec, OpenAIDialect(), self._model)
        notify(f"model {model} at {self._spec.shown()}")
        return replace(self._spec, model=model)

    async def watch(self) -> None:
        """Wait for ever: a server run by others that goes away shows in the calls, and may come back."""
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """Nothing to stop."""
