"""Send single calls to one replica over HTTP, encoded and decoded by a dialect.

The path of a call is short, because its CPU time is the largest cost of the framework: the transport of
`Endpoint` sends and receives whole bodies as bytes, and only the reply is parsed.
"""

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import orjson

from peerloom.errors import LLMDenied, LLMError, LLMRejected
from peerloom.services.llm.base import ChatReply, ChatRequest, EmbedReply, EmbedRequest
from peerloom.services.llm.hosted.constraints import Constraints
from peerloom.services.llm.http.base import HttpResponse, TransportError
from peerloom.services.llm.http.endpoint import Endpoint
from peerloom.services.llm.providers.dialect import Dialect, Post
from peerloom.services.llm.retry import Retryable
from peerloom.services.llm.wire_format.chat import usage_of
from peerloom.services.llm.wire_format.failures import status_in, trimmed
from peerloom.services.llm.wire_format.payloads import MalformedBody, payload_of
from peerloom.services.secret import mask, mask_bytes, mask_json

Read = TypeVar("Read")

_HEALTH_SECONDS = 5.0
_BUSY = (429, 503, 529)
_NO_MODEL = re.compile(
    r"model.{0,200}(not[ _]?found|not exist|no access)|(no such|unknown|no) model|model: |deployment",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class HttpDial:
    """Create the backend of a replica from its base URL. Picklable.

    Args:
        endpoint: the key and timeouts; its base URL is not used.
        dialect: the dialect of the servers.
        model: the model's name on the servers.
    """

    endpoint: Endpoint
    dialect: Dialect
    model: str

    def __call__(self, name: str) -> "HttpBackend":
        """Return the backend of the replica with base URL `name`."""
        return HttpBackend(replace(self.endpoint, base_url=name), self.dialect, self.model)


class HttpBackend:
    """Send single attempts of calls to one endpoint, in the running event loop.

    Args:
        endpoint: the server's endpoint.
        dialect: the server's dialect.
        model: the model's name on the server.
    """

    def __init__(self, endpoint: Endpoint, dialect: Dialect, model: str) -> None:
        self._endpoint = endpoint
        self._dialect = dialect
        self._constraints = Constraints(dialect)
        self._model = model
        key = endpoint.api_key
        self._transport = endpoint.open_transport(dialect.auth(key) if key is not None else {})
        self._urls: dict[str, Any] = {}
        self._answered: set[str] = set()  # paths
        self._secrets = endpoint.secrets  # held, so that they are masked

    async def chat(self, request: ChatRequest, attempt: int) -> ChatReply:
        """Send a chat request, as `Backend.chat`."""
        dialect = self._constraints.dialect
        post = dialect.chat(request, self._model)
        try:
            reply = await self._exchange(post, request, dialect.reply)
            self._constraints.observe(dialect, request, reply)
        except LLMRejected as error:
            self._constraints.observe_refusal(dialect, request, str(error))
            raise
        return reply

    async def embed(self, request: EmbedRequest, attempt: int) -> EmbedReply:
        """Send an embedding request, as `Backend.embed`."""
        post = self._dialect.embed(request, self._model)
        return await self._exchange(post, request, self._dialect.vectors)

    async def healthy(self) -> bool:
        """Return whether the server answers a request for its models, or if that fails an empty chat."""
        answer = await self._probe("GET", Post(self._dialect.models_path, b"", {}))
        if answer is not None and answer.status >= 500 and answer.status not in _BUSY:
            answer = await self._probe("POST", self._dialect.probe(self._model))
        return answer is not None and answer.status < 500 and answer.status not in _BUSY

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    async def _probe(self, method: str, post: Post) -> HttpResponse | None:
        """Send a request that costs no tokens, and return its answer, if there is one."""
        try:
            async with asyncio.timeout(_HEALTH_SECONDS):
                return await self._transport.send(
                    method, self._endpoint.url(post.path), post.body, post.headers
                )
        except (TimeoutError, TransportError):
            return None

    async def _accepts_others(self, status: int, body: bytes, path: str, *, chat: bool) -> bool:
        """Return whether a refusal concerns one request only, although its status suggests the whole run.

        A 404 concerns one request if the server lists the model, or has no list and has answered at that path
        before. A 401 or 403 does if the server has answered at that path before, and accepts the key of an
        empty request.

        Args:
            status: the status of the answer.
            body: the body of the answer.
            path: the path of the request.
            chat: whether it was a chat; a server may list a model that has no embeddings.
        """
        if status == 404 and _NO_MODEL.search(body.decode(errors="replace")) is None:
            listed = await self._listed()
            return path in self._answered if listed is None or not chat else listed
        if status in (401, 403) and path in self._answered:
            probed = await self._probe("POST", self._dialect.probe(self._model))
            return probed is not None and probed.status in (400, 422)
        return False

    async def _listed(self) -> bool | None:
        """Return whether the server lists the model; None if it has no list."""
        answer = await self._probe("GET", Post(self._dialect.models_path, b"", {}))
        if answer is None or answer.status != 200:
            return None
        try:
            names = self._dialect.listed(orjson.loads(answer.body))
        except (orjson.JSONDecodeError, MalformedBody):
            return None
        return None if names is None else self._model in names or f"{self._model}:latest" in names

    async def _exchange(self, post: Post, request: Any, read: Callable[[Any, Any, float], Read]) -> Read:
        start = time.perf_counter()
        url = self._urls.get(post.path)
        if url is None:
            url = self._urls[post.path] = self._endpoint.url(post.path)
        try:
            answer = await self._transport.send("POST", url, post.body, post.headers)
            body = mask_json(answer.body)
            if body is not answer.body:
                answer = HttpResponse(answer.status, answer.fields, body)
            if not 200 <= answer.status < 300:
                raise await self._failure(answer, post.path, chat=isinstance(request, ChatRequest))
            payload: Any = None
            try:
                payload = payload_of(answer.body)
                reply = read(payload, request, time.perf_counter() - start)
            except MalformedBody as error:
                raise self._not_a_reply(answer, payload, error) from error
        except TransportError as error:
            raise Retryable(trimmed(mask(str(error))), taken=error.taken) from error
        except (Retryable, LLMError) as error:  # servers may quote the key
            error.args = tuple(mask(each) if isinstance(each, str) else each for each in error.args)
            raise
        self._answered.add(post.path)
        return reply

    async def _failure(self, answer: HttpResponse, path: str, *, chat: bool) -> Exception:
        """Return the error for an answer that is no success."""
        failure = self._dialect.failure(answer.status, answer.headers, answer.body, time.time())
        if isinstance(failure, LLMDenied) and await self._accepts_others(
            answer.status, answer.body, path, chat=chat
        ):
            return LLMRejected(f"{failure}; only this request is refused: the server accepts others")
        return failure

    def _not_a_reply(self, answer: HttpResponse, payload: Any, error: Exception) -> Exception:
        """Return the error for a 200 without a reply; some gateways send an upstream's error that way."""
        safe = answer.body if payload is None else mask_bytes(orjson.dumps(payload))
        status = status_in(safe)
        if status:
            return self._dialect.failure(status, answer.headers, safe, time.time())
        start, usage = trimmed(safe[:120].decode(errors="replace")), usage_of(_field(payload, "usage"))
        return Retryable(
            f"HTTP 200 with an invalid body ({answer.content_type}; {error}): {start!r}", usage=usage
        )


def _field(payload: Any, name: str) -> Any:
    return cast("dict[str, Any]", payload).get(name) if isinstance(payload, dict) else None
