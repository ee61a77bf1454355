"""What an HTTP answer that is no reply means: ask again, or an error that ends the task.

Servers agree on little here. A prompt that is too long is recognised whatever its status, since some
send it as 500; other 408, 409, 429 and 5xx may pass; the rest says that this request will never do.
"""

from collections.abc import Mapping
from typing import Any, cast

import orjson

from peerloom.errors import ContentFiltered, ContextExceeded, LLMError, LLMRejected
from peerloom.services.llm.retry import Retryable, retry_after

_PASSING = frozenset({408, 409, 425, 429})
_LOADING = "Loading model"  # llama.cpp, with 503, until it can answer
_LONGEST = 300  # characters of a server's own words that an error repeats
_TOO_LONG = ("maximum context length", "exceeds the available context size", "exceeds the context window")
_TOO_LONG_CODES = ("context_length_exceeded", "exceed_context_size_error")


def failure_of(status: int, headers: Mapping[str, str], body: bytes, now: float) -> Retryable | LLMError:
    """The exception that an answer with `status` stands for. `now` is Unix time, for Retry-After."""
    error = error_in(body)
    words = f"HTTP {status}: {_message(error, body) or 'without a word'}"
    code = f"{error.get('code', '')} {error.get('type', '')}"
    if any(known in code for known in _TOO_LONG_CODES) or any(known in words for known in _TOO_LONG):
        return ContextExceeded(words)
    if status in _PASSING or status >= 500:
        loading = status == 503 and _LOADING in words
        return Retryable(words, retry_after(headers, now), taken=not loading)
    if "content_filter" in code or "content_policy" in code:
        return ContentFiltered(words)
    if 300 <= status < 400:
        words += f"; it redirects to {headers.get('Location', 'elsewhere')}: set llm.base_url to that place"
    elif "response_format" in words or "structured_outputs" in words:
        words += "; if this server cannot constrain answers, set llm.structured=none"
    return LLMRejected(words)


def error_in(body: bytes) -> dict[str, Any]:
    """The error object in a server's answer; empty if there is none to recognise.

    OpenAI nests it under `error`; others send it bare, or as a string.
    """
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(payload, dict):
        return {}
    fields = cast("dict[str, Any]", payload)
    error = fields.get("error", fields)
    return cast("dict[str, Any]", error) if isinstance(error, dict) else {"message": error}


def trimmed(text: str) -> str:
    """`text` on one line, cut to what an error message bears."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."


def _message(error: Mapping[str, Any], body: bytes) -> str:
    message = error.get("message") or error.get("detail")
    return trimmed(message if isinstance(message, str) else body[: 4 * _LONGEST].decode(errors="replace"))
