"""Check a server before a run: whether it answers, accepts the key and has the model.

The checks cost no tokens. Each failure has its own message, since most first runs that fail do so here.
"""

import asyncio
import difflib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
from yarl import URL

from peerloom.errors import LLMDenied, ServiceError
from peerloom.services.llm.http.base import HttpResponse, Transport, TransportError
from peerloom.services.llm.http.endpoint import Endpoint
from peerloom.services.llm.providers.dialect import Dialect, Provider
from peerloom.services.llm.retry import retry_after
from peerloom.services.llm.wire_format.failures import error_in, trimmed
from peerloom.services.llm.wire_format.payloads import MalformedBody
from peerloom.services.secret import mask, mask_bytes

_SECONDS = 30.0
_NO_LIST = (404, 405, 501)
_DENIED = (401, 403)
_BUSY = (429, 503, 529)
_BUSY_SECONDS = 120.0  # the limit for waiting for a busy server
_MAX_PAUSE = 15.0


async def choose_model(
    endpoint: Endpoint, dialect: Dialect, wanted: str | None, notify: Callable[[str], None] | None = None
) -> str:
    """Return the name of the model to use: `wanted` if the server has it, or the first it lists.

    A server need not list its models if `wanted` is given. If the server is busy, wait for it.

    Args:
        endpoint: the server's endpoint.
        dialect: the server's dialect.
        wanted: the model's name, if it is known.
        notify: called with the reason for a wait.

    Raises:
        ServiceError: if the server does not answer, refuses the key, or lacks the model.
    """
    key = endpoint.api_key
    transport = endpoint.open_transport(dialect.auth(key) if key is not None else {})
    try:
        check = _Check(endpoint, dialect, transport, notify)
        path = dialect.model_path(wanted) if wanted else None
        if wanted and path and await check.found(path):
            return wanted
        listed = await check.listed(wanted)
        if listed is not None:
            return _pick(endpoint, listed, wanted)
        if not wanted:
            raise ServiceError(f"{endpoint.shown()} does not say which models may be asked: set llm.model")
        await check.accepts_chats(wanted)
        return wanted
    finally:
        await transport.close()


@dataclass(frozen=True)
class _Check:
    """Send the preflight requests to one server."""

    endpoint: Endpoint
    dialect: Dialect
    transport: Transport
    notify: Callable[[str], None] | None

    async def found(self, path: str) -> bool:
        """Return whether `path` describes a model."""
        answer = await self._send("GET", path)
        if answer.status not in (200, 400, *_NO_LIST):  # Gemini also sends 400 for a key it refuses
            raise self._refused(path, answer)
        return answer.status == 200

    async def listed(self, wanted: str | None) -> list[str] | None:
        """Return the models listed; None if the list does not show which models accept chats."""
        path = self.dialect.models_path
        answer = await self._send("GET", path)
        failure = None
        if answer.status == 200:
            try:
                return self.dialect.listed(orjson.loads(answer.body))
            except (orjson.JSONDecodeError, MalformedBody):
                failure = ServiceError(
                    f"{self.endpoint.shown(path)} answers, but with no list of models: "
                    f"{_message(answer.body)!r}. Is llm.base_url the right address?"
                )
        broken = answer.status >= 500 and answer.status not in _BUSY
        may_chat = broken or answer.status in (200, *_NO_LIST, *_DENIED)
        if wanted and may_chat and await self._answers_chats(wanted, strict=broken):
            return [wanted]  # only the list is missing, or refused for this key
        raise failure or self._refused(path, answer)

    async def accepts_chats(self, model: str) -> None:
        """Raise ServiceError unless an empty chat is refused as invalid."""
        post = self.dialect.probe(model)
        answer = await self._send("POST", post.path, post.body)
        if answer.status in _NO_LIST:
            reason = f"HTTP {answer.status}: {_message(answer.body)}"
            raise ServiceError(f"{self.endpoint.shown()} has no model {model!r} ({reason}). Set llm.model")
        if answer.status not in (200, 400, 422):
            raise self._refused(post.path, answer)

    async def _answers_chats(self, model: str, *, strict: bool) -> bool:
        """Return whether an empty chat is refused as invalid, or unless `strict` answered with JSON.

        A test server may answer 404 to an empty chat. If there is no server, the first call fails with a
        message.
        """
        post = self.dialect.probe(model)
        answer = await self._send("POST", post.path, post.body)
        if answer.status in (400, 422):
            return True
        if answer.status in _DENIED or answer.status // 100 == 3:
            raise self._refused(post.path, answer)
        if strict:
            return answer.status == 200
        wrong_url = answer.status in _NO_LIST and _tail_hint(self.endpoint, self.dialect.provider)
        return not wrong_url and answer.body.lstrip().startswith(b"{")

    async def _send(self, method: str, path: str, body: bytes = b"") -> HttpResponse:
        """Send a request, and repeat it for a limited time while the server is busy."""
        deadline, pause, notified = time.monotonic() + _BUSY_SECONDS, 0.5, False
        while True:
            answer = await self._send_once(method, path, body)
            if answer.status not in _BUSY or self._is_denied(answer):
                return answer
            requested = retry_after(answer.headers, time.time())
            wait = pause if requested is None else requested
            if time.monotonic() + wait > deadline:
                return answer
            if self.notify is not None and not notified:
                self.notify(
                    f"{self.endpoint.shown(path)} is busy (HTTP {answer.status}: {_message(answer.body)}): "
                    f"waiting for up to {_BUSY_SECONDS:g} s"
                )
            notified = True
            await asyncio.sleep(wait)
            pause = min(2 * pause, _MAX_PAUSE)

    def _is_denied(self, answer: HttpResponse) -> bool:
        """Return whether waiting cannot help, e.g. since the account has no credit."""
        failure = self.dialect.failure(answer.status, answer.headers, answer.body, time.time())
        return isinstance(failure, LLMDenied)

    async def _send_once(self, method: str, path: str, body: bytes) -> HttpResponse:
        endpoint, variable = self.endpoint, self.dialect.provider.url_env
        seconds = min(_SECONDS, endpoint.timeout)
        try:
            async with asyncio.timeout(seconds):
                return await self.transport.send(method, endpoint.url(path), body, {})
        except TimeoutError as error:
            raise ServiceError(
                f"{endpoint.shown(path)} does not answer in {seconds:g} s: "
                f"check that the server is well, and llm.base_url ({variable})"
            ) from error
        except TransportError as error:
            raise ServiceError(
                f"no LLM server answers at {endpoint.shown()} ({mask(str(error))}): start it, "
                f"or set llm.base_url ({variable}) to where it is"
            ) from error

    def _refused(self, path: str, answer: HttpResponse) -> ServiceError:
        status, body = answer.status, answer.body
        where, provider = self.endpoint.shown(path), self.dialect.provider
        if status in _DENIED or b"API_KEY_INVALID" in body:
            refused = (
                "the API key was refused"
                if self.endpoint.api_key
                else "it requires an API key and none is set"
            )
            return ServiceError(f"{where}: {refused} (HTTP {status}): set {provider.key_env}")
        if status == 404:
            return ServiceError(f"{where} is not found (HTTP 404){_tail_hint(self.endpoint, provider)}")
        if status // 100 == 3:
            target = mask(_target(self.endpoint.url(path), answer.headers.get("Location", "")))
            return ServiceError(f"{where} redirects{target} (HTTP {status}): set llm.base_url to that place")
        return ServiceError(f"{where} answered HTTP {status}: {_message(body)}")


def _target(url: URL, location: str) -> str:
    """Return the target of a redirect, without the parts that may hold secrets."""
    if not location:
        return ""
    try:
        target = url.join(URL(location))
        return f" to {target.with_user(None).with_query(None).with_fragment(None)}"
    except ValueError:
        return f" to {location[:80]!r}"


def _tail_hint(endpoint: Endpoint, provider: Provider) -> str:
    tail = provider.tail
    return f". Does llm.base_url lack its {tail}?" if tail and not endpoint.shown().endswith(tail) else ""


def _pick(endpoint: Endpoint, listed: list[str], wanted: str | None) -> str:
    if not listed and wanted is None:
        raise ServiceError(f"{endpoint.shown('/models')} lists no model: load one there")
    if wanted is None:
        return listed[0]
    # Ollama lists names with a tag, and accepts them without it.
    if not listed or wanted in listed or f"{wanted}:latest" in listed:
        return wanted
    close = difflib.get_close_matches(wanted, listed, n=1, cutoff=0.3)
    few = ", ".join(listed[:5]) + (", ..." if len(listed) > 5 else "")
    hint = f"Did you mean {close[0]!r}?" if close else f"There are: {few}."
    raise ServiceError(f"{endpoint.shown()} has no model {wanted!r}. {hint} Set llm.model")


def _message(body: bytes) -> str:
    safe = mask_bytes(body)
    message: Any = error_in(safe).get("message")
    return trimmed(message if isinstance(message, str) else safe[:400].decode(errors="replace"))
