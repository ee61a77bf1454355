"""A chat completion request as the simulated model sees it: what is asked, and the dice for the reply.

One hash of messages, parameters and the model's seed gives eight 32-bit draws; each law uses one of its
own. The token limit and stop strings are left out of it: they cut a reply, they do not change it.
"""

import hashlib
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import orjson

from peerloom.services.llm.wire import choice_schema

CHARS_PER_TOKEN = 4
_MESSAGE_TOKENS = 4  # what a message costs besides its text
_CACHE_BLOCK = 16  # tokens; servers cache prefixes in blocks
_DRAWS = struct.Struct("<8I")


class BadRequest(ValueError):
    """A body the simulated model refuses; `code` as in OpenAI's errors."""

    def __init__(self, message: str, code: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.code = code


class Ask(NamedTuple):
    """A request body, read.

    `texts` are the words of the messages, `said` those without the system's. If `choices` is set, the
    reply is one of them and nothing else.
    """

    draws: tuple[int, ...]
    texts: list[str]
    said: list[str]
    schema: dict[str, Any] | None
    choices: list[str]
    max_tokens: int | None
    stop: Sequence[str]

    @property
    def prompt_tokens(self) -> int:
        """How long the prompt is."""
        return sum(map(len, self.texts)) // CHARS_PER_TOKEN + _MESSAGE_TOKENS * len(self.texts)

    @property
    def cached_tokens(self) -> int:
        """How much of it a server would have met before: what precedes the last message."""
        earlier = sum(map(len, self.texts[:-1])) // CHARS_PER_TOKEN
        return earlier - earlier % _CACHE_BLOCK


def read(body: Any, seed: int) -> Ask:
    """What `body`, a decoded chat completion request, asks of the model with that seed.

    Raises:
        BadRequest: if it is malformed.
    """
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    fields = cast("dict[str, Any]", body)
    messages: Any = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages must be a list of at least one message")
    messages = cast("list[Any]", messages)
    texts = [_text(message) for message in messages]
    said = texts[1:] if messages[0].get("role") in ("system", "developer") else texts
    schema, choices = _constraint(fields)
    limit = fields.get("max_tokens") or fields.get("max_completion_tokens")
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise BadRequest("max_tokens must be a whole number of at least 1")
    stop = fields.get("stop") or ()
    hashed: list[Any] = [str(seed), messages, schema, *map(fields.get, ("temperature", "top_p", "seed"))]
    draws = _DRAWS.unpack(hashlib.sha256(orjson.dumps(hashed)).digest())
    return Ask(draws, texts, said, schema, choices, limit, [stop] if isinstance(stop, str) else stop)


def _constraint(body: dict[str, Any]) -> tuple[dict[str, Any] | None, list[str]]:
    """The schema a reply must follow, if any, and the choices if it is to be one of them bare."""
    try:
        if "structured_outputs" in body and (choices := body["structured_outputs"].get("choice")):
            return choice_schema(choices), choices
        asked = body.get("response_format")
        if asked and asked["type"] == "json_schema":
            return dict(asked["json_schema"]["schema"]), []
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadRequest("response_format or structured_outputs is malformed") from error
    return None, []


def _text(message: Any) -> str:
    """The words of a message; of parts only those that are text."""
    try:
        content = message.get("content")
        if isinstance(content, str):
            return content
        return "\n".join(part.get("text") or "" for part in content or ())
    except (AttributeError, TypeError) as error:
        raise BadRequest("each message must be an object whose content is text or a list of parts") from error
