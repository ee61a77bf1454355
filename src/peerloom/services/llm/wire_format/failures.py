"""What an HTTP answer that is no reply means: four kinds, told apart here for the OpenAI-like.

It may pass (408, 409, 5xx: ask again), it is a limit (429, 503, 529: ask less), it is the user's to mend
(401, 402, 403, 404, an empty account: no request of this run will do), or this request will never do.
Servers agree on little: a prompt that is too long is recognised whatever its status, since some send it
as 500, and so is an empty account, which OpenAI sends as 429.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from peerloom.errors import ContentFiltered, ContextExceeded, LLMDenied, LLMError, LLMRejected
from peerloom.services.llm.retry import Retryable, retry_after
from peerloom.services.llm.wire_format.chat import count, group, groups, text_or_nothing
from peerloom.services.llm.wire_format.too_long import is_too_long
from peerloom.values import too_deep

_PASSING = frozenset({408, 409, 425})
_LIMITS = frozenset({429, 503, 529})
_UNAVAILABLE = 503
_NOT_IMPLEMENTED = 501  # nor will it be by the next attempt
_DENIED = {
    401: "the API key is missing or refused",
    402: "the account is empty",
    403: "the key may not do this",
    404: "there is no such model, or no such path",
}
_NO_QUOTA = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
_LOADING = "Loading model"  # llama.cpp, with 503, until it can answer
_LONGEST = 300  # characters of a server's own words that an error repeats


def failure_of(status: int, headers: Mapping[str, str], body: bytes, now: float) -> Retryable | LLMError:
    """The exception that an answer with `status` stands for. `now` is Unix time, for Retry-After."""
    error = error_in(body)
    words = worded(status, body)
    code = f"{error.get('code', '')} {error.get('type', '')}"
    if status not in _DENIED and is_too_long(_without_request(error, body)):
        return ContextExceeded(words)
    if any(known in code for known in _NO_QUOTA):
        return LLMDenied(f"{words}; the account has no quota left")
    if status == _UNAVAILABLE and _LOADING in words:
        return Retryable(words, retry_after(headers, now), taken=False)
    if status in _LIMITS:
        overload = status == _UNAVAILABLE  # of this server; what else it may mean shows in time
        return Retryable(words, retry_after(headers, now), limit=True, overload=overload)
    if status in _PASSING or (status >= 500 and status != _NOT_IMPLEMENTED):
        return Retryable(words, retry_after(headers, now))
    return _refusal(status, headers, words, code)


def _refusal(status: int, headers: Mapping[str, str], words: str, code: str) -> LLMError:
    """What will never do: for this request, or for any of this run."""
    if "content_filter" in code or "content_policy" in code:
        return ContentFiltered(words)
    if status in _DENIED:
        return LLMDenied(f"{words}; {_DENIED[status]}")
    if 300 <= status < 400:
        there = headers.get("Location", "elsewhere").partition("?")[0]  # what follows may be signed
        words += f"; it redirects to {there}: set llm.base_url to that place"
    elif "response_format" in words or "structured_outputs" in words:
        words += "; if this server cannot constrain answers, set llm.structured=none"
    return LLMRejected(words)


def worded(status: int, body: bytes) -> str:
    """What errors repeat of an answer: its status and its words."""
    return f"HTTP {status}: {_message(error_in(body), body) or 'without a word'}"


def error_in(body: bytes) -> dict[str, Any]:
    """The error object in a server's answer; empty if there is none to recognise.

    OpenAI nests it under `error`; others send it bare, or as a string.
    """
    fields = group(_json(body))
    error = fields.get("error", fields)
    return group(error) if isinstance(error, dict) else {"message": error}


def message_in(body: bytes) -> str:
    """Return the message of a server's error, or the beginning of its body, on one line."""
    return _message(error_in(body), body)


def _json(body: bytes) -> object:
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return None if too_deep(payload) else payload


def _without_request(error: Mapping[str, Any], body: bytes) -> bytes:
    """The body without the parts of the request that FastAPI's validation errors repeat."""
    details = groups(error.get("detail"))
    if not details:
        return body
    return "\n".join(text_or_nothing(detail.get("msg")) for detail in details).encode(errors="replace")


def status_in(body: bytes) -> int:
    """The HTTP status that the error in a 200 stands for; 0 if there is none.

    Gateways send an upstream's error that way, with its status as `code`: a number, or a text.
    """
    error = error_in(body)
    code = count(error.get("code"))
    if 400 <= code < 600:
        return code
    return 400 if "error" in group(_json(body)) and is_too_long(body) else 0


def trimmed(text: str) -> str:
    """`text` on one line, cut to what an error message bears."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."


def _message(error: Mapping[str, Any], body: bytes) -> str:
    message = error.get("message") or error.get("detail")
    return trimmed(message if isinstance(message, str) else body[: 4 * _LONGEST].decode(errors="replace"))
