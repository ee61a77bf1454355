"""Classify the HTTP errors of OpenAI-compatible servers.

There are four classes: transient (408, 409, 5xx), rate limit (429, 503, 529), configuration (401, 402, 403,
404 or an empty account, which fail all requests of the run), and per-request errors. Servers use different
status codes: a prompt that is too long is recognized with any status, since some servers send 500, and so is
an empty account, for which OpenAI sends 429.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from peerloom.errors import ContentFiltered, ContextExceeded, LLMDenied, LLMError, LLMRejected
from peerloom.services.llm.retry import Retryable, retry_after
from peerloom.services.llm.wire_format.chat import count, group, groups, text_or_nothing
from peerloom.services.llm.wire_format.too_long import is_too_long
from peerloom.values import too_deep

_TRANSIENT = frozenset({408, 409, 425})
_LIMITS = frozenset({429, 503, 529})
_UNAVAILABLE = 503
_NOT_IMPLEMENTED = 501  # not transient
_DENIED = {
    401: "the API key is missing or refused",
    402: "the account is empty",
    403: "the key may not do this",
    404: "there is no such model, or no such path",
}
_NO_QUOTA = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
_LOADING = "Loading model"  # llama.cpp, with 503
_LONGEST = 300  # maximum characters of a server's message in an error


def failure_of(status: int, headers: Mapping[str, str], body: bytes, now: float) -> Retryable | LLMError:
    """Return the exception for an HTTP error. `now` is Unix time, for Retry-After."""
    error = error_in(body)
    message = worded(status, body)
    code = f"{error.get('code', '')} {error.get('type', '')}"
    if status not in _DENIED and is_too_long(_without_request(error, body)):
        return ContextExceeded(message)
    if any(known in code for known in _NO_QUOTA):
        return LLMDenied(f"{message}; the account has no quota left")
    if status == _UNAVAILABLE and _LOADING in message:
        return Retryable(message, retry_after(headers, now), taken=False)
    if status in _LIMITS:
        overload = status == _UNAVAILABLE  # of this replica, so another one may have capacity
        return Retryable(message, retry_after(headers, now), limit=True, overload=overload)
    if status in _TRANSIENT or (status >= 500 and status != _NOT_IMPLEMENTED):
        return Retryable(message, retry_after(headers, now))
    return _permanent(status, headers, message, code)


def _permanent(status: int, headers: Mapping[str, str], message: str, code: str) -> LLMError:
    """Return the exception for a permanent error, of this request or of all requests of the run."""
    if "content_filter" in code or "content_policy" in code:
        return ContentFiltered(message)
    if status in _DENIED:
        return LLMDenied(f"{message}; {_DENIED[status]}")
    if 300 <= status < 400:
        location = headers.get("Location", "elsewhere").partition("?")[0]  # the query may contain a signature
        message += f"; it redirects to {location}: set llm.base_url to that place"
    elif "response_format" in message or "structured_outputs" in message:
        message += "; if this server cannot constrain answers, set llm.structured=none"
    return LLMRejected(message)


def worded(status: int, body: bytes) -> str:
    """Return the status and the error message of a response, for errors."""
    return f"HTTP {status}: {_message(error_in(body), body) or 'no message'}"


def error_in(body: bytes) -> dict[str, Any]:
    """Return the error object in a response body; empty if there is none.

    OpenAI nests it under `error`; other servers send it at the top level, or as a string.
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
    """Return the body without the parts of the request that FastAPI's validation errors repeat."""
    details = groups(error.get("detail"))
    if not details:
        return body
    return "\n".join(text_or_nothing(detail.get("msg")) for detail in details).encode(errors="replace")


def status_in(body: bytes) -> int:
    """Return the HTTP status of an error in a response with status 200; 0 if there is none.

    Gateways forward upstream errors this way, with the status as `code`: a number or a string.
    """
    error = error_in(body)
    code = count(error.get("code"))
    if 400 <= code < 600:
        return code
    return 400 if "error" in group(_json(body)) and is_too_long(body) else 0


def trimmed(text: str) -> str:
    """Return `text` on one line, cut to the maximum length for errors."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."


def _message(error: Mapping[str, Any], body: bytes) -> str:
    message = error.get("message") or error.get("detail")
    return trimmed(message if isinstance(message, str) else body[: 4 * _LONGEST].decode(errors="replace"))
