"""One cheap look at a server before a run depends on it: is it there, is the key right, the model listed.

Each way it can go wrong has words of its own, since this is where a first run most often ends.
"""

import difflib
from typing import Any

import aiohttp
import orjson

from peerloom.errors import ServiceError
from peerloom.services.llm.dialect import Dialect, MalformedBody, Provider
from peerloom.services.llm.endpoint import Endpoint
from peerloom.services.llm.failures import error_in, trimmed
from peerloom.services.llm.through_aiohttp import open_session, read_answer

_SECONDS = 30.0
_NO_LIST = (404, 405, 501)
_DENIED = (401, 403)


async def choose_model(endpoint: Endpoint, dialect: Dialect, wanted: str | None) -> str:
    """The name of the model to use: `wanted` if the server has it, or the first it lists.

    Raises:
        ServiceError: if the server does not answer, refuses the key, or lacks the model.
    """
    key = endpoint.api_key
    async with open_session(endpoint, dialect.auth(key) if key is not None else {}) as session:
        look = _Look(endpoint, dialect, session)
        described = dialect.model_path(wanted) if wanted else None
        if wanted and described and await look.found(described):
            return wanted
        listed = await look.listed(wanted)
        if listed is not None:
            return _pick(endpoint, listed, wanted)
        if not wanted:
            raise ServiceError(f"{endpoint.shown()} does not say which models may be asked: set llm.model")
        await look.takes_chats(wanted)
        return wanted


class _Look:
    """Requests to one server."""

    def __init__(self, endpoint: Endpoint, dialect: Dialect, session: aiohttp.ClientSession) -> None:
        self._endpoint = endpoint
        self._dialect = dialect
        self._session = session

    async def found(self, path: str) -> bool:
        """Whether a model is described at `path`."""
        status, body = await self._ask("GET", path)
        if status not in (200, 400, *_NO_LIST):  # 400 is Gemini's word for a key it refuses, too
            raise self._refused(path, status, body)
        return status == 200

    async def listed(self, wanted: str | None) -> list[str] | None:
        """The models listed; None if they are not, though chats may be answered."""
        path = self._dialect.models_path
        status, body = await self._ask("GET", path)
        if status in _NO_LIST and wanted and await self._refuses_an_empty_chat(wanted):
            return [wanted]  # it only does not list its models
        if status != 200:
            raise self._refused(path, status, body)
        try:
            return self._dialect.listed(orjson.loads(body))
        except (orjson.JSONDecodeError, MalformedBody) as error:
            raise ServiceError(
                f"{self._endpoint.shown(path)} answers, but with no list of models: "
                f"{_words(self._endpoint, body)!r}. Is llm.base_url the right address?"
            ) from error

    async def takes_chats(self, model: str) -> None:
        """Raise ServiceError unless an empty chat is refused for what it is."""
        post = self._dialect.probe(model)
        status, body = await self._ask("POST", post.path, post.body)
        if status in _NO_LIST:
            words = _words(self._endpoint, body)
            raise ServiceError(
                f"{self._endpoint.shown()} has no model {model!r} (HTTP {status}: {words}). Set llm.model"
            )
        if status not in (200, 400, 422):
            raise self._refused(post.path, status, body)

    async def _refuses_an_empty_chat(self, model: str) -> bool:
        post = self._dialect.probe(model)
        status, _ = await self._ask("POST", post.path, post.body)
        return status in (400, 422)

    async def _ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        endpoint, variable = self._endpoint, self._dialect.provider.url_env
        seconds = min(_SECONDS, endpoint.timeout)
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=endpoint.connect_timeout)
        url = endpoint.url(path)
        try:
            async with self._session.request(
                method, url, data=body, timeout=timeout, allow_redirects=False
            ) as response:
                answer = await read_answer(response)
                return answer.status, answer.body
        except TimeoutError as error:
            raise ServiceError(
                f"{endpoint.shown(path)} does not answer in {seconds:g} s: "
                f"check that the server is well, and llm.base_url ({variable})"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise ServiceError(
                f"no LLM server answers at {endpoint.shown()} ({error}): start it, "
                f"or set llm.base_url ({variable}) to where it is"
            ) from error

    def _refused(self, path: str, status: int, body: bytes) -> ServiceError:
        where, provider = self._endpoint.shown(path), self._dialect.provider
        if status in _DENIED or b"API_KEY_INVALID" in body:
            refused = (
                "the API key was refused" if self._endpoint.api_key else "it wants an API key and none is set"
            )
            return ServiceError(f"{where}: {refused} (HTTP {status}): set {provider.key_env}")
        if status == 404:
            return ServiceError(f"{where} is not found (HTTP 404){_forgotten(self._endpoint, provider)}")
        return ServiceError(f"{where} answered HTTP {status}: {_words(self._endpoint, body)}")


def _forgotten(endpoint: Endpoint, provider: Provider) -> str:
    tail = provider.tail
    return f". Does llm.base_url lack its {tail}?" if tail and not endpoint.shown().endswith(tail) else ""


def _pick(endpoint: Endpoint, listed: list[str], wanted: str | None) -> str:
    if not listed:
        raise ServiceError(f"{endpoint.shown('/models')} lists no model: load one there")
    if wanted is None:
        return listed[0]
    if wanted in listed or f"{wanted}:latest" in listed:  # Ollama lists a tag and takes names without it
        return wanted
    close = difflib.get_close_matches(wanted, listed, n=1, cutoff=0.3)
    few = ", ".join(listed[:5]) + (", ..." if len(listed) > 5 else "")
    hint = f"Did you mean {close[0]!r}?" if close else f"There are: {few}."
    raise ServiceError(f"{endpoint.shown()} has no model {wanted!r}. {hint} Set llm.model")


def _words(endpoint: Endpoint, body: bytes) -> str:
    safe = endpoint.hidden(body)
    message: Any = error_in(safe).get("message")
    return trimmed(message if isinstance(message, str) else safe[:400].decode(errors="replace"))
