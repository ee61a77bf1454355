"""Parse and validate requests to the simulated model, and compute the random draws for their replies.

A hash of messages, parameters and the model's seed gives eight 32-bit draws, one for each random choice. The
token limit and stop strings are not hashed: they cut a reply, but do not change it.
"""

import hashlib
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import orjson

from peerloom.services.llm.wire_format.chat import choice_schema

CHARS_PER_TOKEN = 4
MESSAGE_TOKENS = 4  # of a message in addition to its text
CACHE_BLOCK = 16  # tokens; servers cache prefixes in blocks
MOST_LOGPROBS = 20
MOST_DIMENSIONS = 8_192
_DRAWS = struct.Struct("<8I")


class BadRequest(ValueError):
    """An invalid request body; `code` is that of OpenAI's errors."""

    def __init__(self, message: str, code: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.code = code


class Tool(NamedTuple):
    """A function that the reply must call. `named` is whether the request names it."""

    name: str
    parameters: dict[str, Any]
    named: bool


class SimulatedRequest(NamedTuple):
    """A parsed chat completion request.

    `texts` are the texts of the messages, `dialogue` those without the system message. If `choices` is set,
    the reply is one of them. `tools` is the length of their descriptions in tokens. `logprobs` is the number
    of alternatives of each token; None without log-probabilities.
    """

    draws: tuple[int, ...]
    texts: list[str]
    dialogue: list[str]
    schema: dict[str, Any] | None
    choices: list[str]
    max_tokens: int | None
    stop: Sequence[str]
    messages: Sequence[Mapping[str, Any]] = ()
    tool: Tool | None = None
    tools: int = 0
    logprobs: int | None = None

    @property
    def prompt_tokens(self) -> int:
        """The length of the prompt in tokens."""
        return sum(map(len, self.texts)) // CHARS_PER_TOKEN + MESSAGE_TOKENS * len(self.texts) + self.tools

    @property
    def cached_tokens(self) -> int:
        """The tokens of the prompt that a server would have cached: those before the last message."""
        earlier = sum(map(len, self.texts[:-1])) // CHARS_PER_TOKEN
        return earlier - earlier % CACHE_BLOCK


class SimulatedEmbedRequest(NamedTuple):
    """A parsed embeddings request. `base64` is whether vectors are requested in base64."""

    draws: tuple[int, ...]
    texts: list[str]
    dimensions: int | None
    base64: bool

    @property
    def prompt_tokens(self) -> int:
        """The total length of the texts in tokens, at least one each."""
        return sum(len(text) // CHARS_PER_TOKEN + 1 for text in self.texts)


def read(body: Any, seed: int) -> SimulatedRequest:
    """Parse the decoded body of a chat completion request to the model with that seed.

    Raises:
        BadRequest: if the body is malformed.
    """
    fields = _fields(body)
    if fields.get("stream"):
        raise BadRequest("stream is not supported")
    messages: Any = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages must be a list of at least one message")
    messages = cast("list[Any]", messages)
    texts = [_text(message) for message in messages]
    dialogue = texts[1:] if messages[0].get("role") in ("system", "developer") else texts
    schema, choices = _constraint(fields)
    limit = fields.get("max_tokens") or fields.get("max_completion_tokens")
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise BadRequest("max_tokens must be a whole number of at least 1")
    stop = fields.get("stop") or ()
    hashed: list[Any] = [str(seed), messages, schema, *map(fields.get, ("temperature", "top_p", "seed"))]
    tool, tools = _tools(fields, hashed) if fields.get("tools") else (None, 0)
    logprobs = _logprobs(fields) if fields.get("logprobs") else None
    stops = [stop] if isinstance(stop, str) else stop
    draws = _drawn(hashed)
    return SimulatedRequest(
        draws, texts, dialogue, schema, choices, limit, stops, messages, tool, tools, logprobs
    )


def read_embed(body: Any, seed: int) -> SimulatedEmbedRequest:
    """Parse the decoded body of an embeddings request to the model with that seed.

    Raises:
        BadRequest: if the body is malformed.
    """
    fields = _fields(body)
    given: Any = fields.get("input")
    texts: Any = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(map(_is_text, texts)):  # pyright: ignore[reportUnknownArgumentType] - of a client
        raise BadRequest("input must be a text, or a list of at least one")
    size = fields.get("dimensions")
    if size is not None and not (isinstance(size, int) and 1 <= size <= MOST_DIMENSIONS):
        raise BadRequest(f"dimensions must be a whole number from 1 to {MOST_DIMENSIONS}")
    return SimulatedEmbedRequest(
        _drawn([str(seed), texts]), texts, size, fields.get("encoding_format") == "base64"
    )


def _fields(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    return cast("dict[str, Any]", body)


def _drawn(hashed: list[Any]) -> tuple[int, ...]:
    return _DRAWS.unpack(hashlib.sha256(orjson.dumps(hashed)).digest())


def _tools(body: dict[str, Any], hashed: list[Any]) -> tuple[Tool | None, int]:
    """Return the function to call, if any, and the length of all descriptions; both are added to the hash.

    With `required` the function is chosen at random; with `auto` the model calls none.
    """
    tools, choice = body["tools"], body.get("tool_choice") or "auto"
    hashed += [tools, choice]
    try:
        functions: dict[str, Any] = {
            tool["function"]["name"]: tool["function"].get("parameters") for tool in tools
        }
        length = len(orjson.dumps(tools)) // CHARS_PER_TOKEN
        if choice in ("auto", "none"):
            return None, length
        named = choice != "required"
        if named:
            name = choice["function"]["name"]
        else:
            name = sorted(functions)[_drawn(hashed)[0] % len(functions)]
        return Tool(name, dict(functions[name] or {}), named), length
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BadRequest("tools or tool_choice is malformed, or no tool has the name chosen") from error


def _logprobs(body: dict[str, Any]) -> int:
    most = body.get("top_logprobs") or 0
    if not isinstance(most, int) or not 0 <= most <= MOST_LOGPROBS:
        raise BadRequest(f"top_logprobs must be a whole number from 0 to {MOST_LOGPROBS}")
    return most


def _constraint(body: dict[str, Any]) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the schema of the reply, if any, and the choices if the reply is to be one of them unwrapped."""
    try:
        if "structured_outputs" in body and (choices := body["structured_outputs"].get("choice")):
            return choice_schema(choices), choices
        asked = body.get("response_format")
        if asked and asked["type"] == "json_schema":
            return dict(asked["json_schema"]["schema"]), []
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadRequest("response_format or structured_outputs is malformed") from error
    return None, []


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _text(message: Any) -> str:
    """Return the text of a message; parts that are not text are skipped."""
    try:
        content = message.get("content")
        if isinstance(content, str):
            return content
        return "\n".join(part.get("text") or "" for part in content or ())
    except (AttributeError, TypeError) as error:
        raise BadRequest("each message must be an object whose content is text or a list of parts") from error
