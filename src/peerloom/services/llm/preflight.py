"""One cheap look at a server before a run depends on it: is it there, is the key right, the model listed.

Each way it can go wrong has words of its own, since this is where a first run most often ends.
"""

import difflib
from typing import Any, cast

import aiohttp
import orjson

from peerloom.errors import ServiceError
from peerloom.services.llm.dialect import Dialect
from peerloom.services.llm.endpoint import Endpoint
from peerloom.services.llm.failures import error_in, trimmed

_SECONDS = 30.0


async def choose_model(endpoint: Endpoint, dialect: Dialect, wanted: str | None) -> str:
    """The name of the model to use: `wanted` if the server has it, or the first it lists.

    Raises:
        ServiceError: if the server does not answer, refuses the key, or lacks the model.
    """
    key = endpoint.api_key
    async with endpoint.open_session(dialect.auth(key) if key is not None else {}) as session:
        status, body = await _ask(endpoint, session, "GET", "/models")
        if status in (404, 405, 501) and wanted and await _takes_chats(endpoint, session):
            return wanted  # it only does not list its models
    where = endpoint.shown("/models")
    if status == 200:
        return _pick(endpoint, _listed(endpoint, body), wanted)
    if status in (401, 403):
        key = "the API key was refused" if endpoint.api_key else "it wants an API key and none is set"
        raise ServiceError(f"{where}: {key} (HTTP {status}): set OPENAI_API_KEY")
    if status == 404:
        hint = "" if endpoint.shown().endswith("/v1") else ". Does llm.base_url lack its /v1?"
        raise ServiceError(f"{where} is not found (HTTP 404){hint}")
    raise ServiceError(f"{where} answered HTTP {status}: {_words(endpoint, body)}")


async def _ask(
    endpoint: Endpoint, session: aiohttp.ClientSession, method: str, path: str, body: bytes | None = None
) -> tuple[int, bytes]:
    seconds = min(_SECONDS, endpoint.timeout)
    timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=endpoint.connect_timeout)
    url = endpoint.url(path)
    try:
        async with session.request(
            method, url, data=body, timeout=timeout, allow_redirects=False
        ) as response:
            return response.status, await response.read()
    except TimeoutError as error:
        raise ServiceError(
            f"{endpoint.shown(path)} does not answer in {seconds:g} s: "
            "check that the server is well, and llm.base_url (OPENAI_BASE_URL)"
        ) from error
    except (aiohttp.ClientError, OSError) as error:
        raise ServiceError(
            f"no LLM server answers at {endpoint.shown()} ({error}): start it, "
            "or set llm.base_url (OPENAI_BASE_URL) to where it is"
        ) from error


async def _takes_chats(endpoint: Endpoint, session: aiohttp.ClientSession) -> bool:
    """Whether an empty chat request, which costs nothing, is refused for what it is."""
    status, _ = await _ask(endpoint, session, "POST", "/chat/completions", b"{}")
    return status in (400, 422)


def _listed(endpoint: Endpoint, body: bytes) -> list[str]:
    try:
        data: Any = orjson.loads(body)["data"]
        return [cast("str", item["id"]) for item in data]
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError) as error:
        raise ServiceError(
            f"{endpoint.shown('/models')} answers, but with no list of models: "
            f"{_words(endpoint, body)!r}. Is llm.base_url the address of an OpenAI-compatible server?"
        ) from error


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
    message = error_in(safe).get("message")
    return trimmed(message if isinstance(message, str) else safe[:400].decode(errors="replace"))
