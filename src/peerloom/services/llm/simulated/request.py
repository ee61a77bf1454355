"""Parse and validate requests to the simulated model, and compute the random draws for their replies.

A hash of messages, parameters and the model's seed gives eight 32-bit draws, one for each random choice. The
token limit and stop strings are not hashed: they cut a reply, but do not change it.
"""

import hashlib
import struct
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import orjson

from peerloom.services.llm.wire_format.chat import choice_schema

CHARS_PER_TOKEN = 4
MESSAGE_TOKENS = 4  # of a message in addition to its text
CACHE_BLOCK = 16  # tokens; servers cache prefixes in blocks
MOST_LOGPROBS = 20
MOST_DIMENSIONS = 8_192
MOST_CHOICES = 128
_DRAWS = struct.Struct("<8I")

_SAMPLING = (
    *("frequency_penalty", "presence_penalty", "logit_bias", "reasoning_effort", "verbosity"),
    *("top_k", "min_p", "repetition_penalty", "chat_template_kwargs"),
)
"""Parameters that change a reply at random, like temperature, top_p, and seed."""
_WITHOUT_EFFECT = frozenset(
    {
        *("user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
        *("service_tier", "parallel_tool_calls"),
    }
)
"""Parameters that change no reply of a real server either; a reply calls at most one tool."""
_COMMON = frozenset(
    {
        *("model", "max_tokens", "stop", "n", "stream", "stream_options", "temperature", "top_p", "seed"),
        *_SAMPLING,
        *_WITHOUT_EFFECT,
    }
)
_CHAT = _COMMON | {
    *("messages", "max_completion_tokens", "tools", "tool_choice", "logprobs", "top_logprobs"),
    *("response_format", "structured_outputs"),
}
_TEXT = _COMMON | {"prompt", "echo"}
_EMBEDDINGS = frozenset({"model", "input", "dimensions", "encoding_format", "user"})
_OFF: dict[str, tuple[Any, ...]] = {"store": (False,), "best_of": (1,), "modalities": (["text"],)}
"""Parameters of which only these values are supported."""
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_PARTS = ("text", "image_url", "input_audio", "file", "refusal")
_ANY_OBJECT: dict[str, Any] = {
    "type": "object",
    "properties": {"answer": {"type": "string"}, "certainty": {"type": "number", "minimum": 0, "maximum": 1}},
}
"""The schema of replies with `response_format` `json_object`."""


class BadRequest(ValueError):
    """An invalid request body; `code` is that of OpenAI's errors."""

    def __init__(self, message: str, code: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.code = code


class Tool(NamedTuple):
    """A function that the reply calls. `named` is whether the request names it."""

    name: str
    parameters: dict[str, Any]
    named: bool


class SimulatedRequest(NamedTuple):
    """A parsed chat completion request.

    `texts` are the texts of the messages, `dialogue` those without the system message. If `choices` is set,
    the reply is one of them. `tools` is the length of their descriptions in tokens. `logprobs` is the number
    of alternatives of each token; None without log-probabilities.

    `offered` are the functions that the reply may call, and `rounds` the rounds of calls since the last
    message of the user. `n` is the number of choices. `stream` is whether the reply is streamed, and
    `stream_usage` whether with its usage. `prompt` is the prompt of a completion without messages, None for a
    chat; `echo` is whether the reply repeats it.
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
    offered: Mapping[str, dict[str, Any]] = MappingProxyType({})
    rounds: int = 0
    n: int = 1
    stream: bool = False
    stream_usage: bool = False
    prompt: str | None = None
    echo: bool = False
    model: str | None = None

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
    model: str | None = None

    @property
    def prompt_tokens(self) -> int:
        """The total length of the texts in tokens, at least one each."""
        return sum(len(text) // CHARS_PER_TOKEN + 1 for text in self.texts)


def read(body: Any, seed: int) -> SimulatedRequest:
    """Parse the decoded body of a chat completion request to the model with that seed.

    Raises:
        BadRequest: if the body is malformed, or has a parameter that is not supported.
    """
    fields = _fields(body, _CHAT)
    messages: Any = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages must be a list of at least one message")
    messages = cast("list[Any]", messages)
    texts = [_text(message) for message in messages]
    dialogue = texts[1:] if messages[0].get("role") in ("system", "developer") else texts
    schema, choices = _constraint(fields)
    hashed: list[Any] = [str(seed), messages, schema, *map(fields.get, ("temperature", "top_p", "seed"))]
    tool, offered, tools = _tools(fields, hashed)
    logprobs = _logprobs(fields)
    request = _common(fields, hashed, SimulatedRequest((), texts, dialogue, schema, choices, None, ()))
    return request._replace(
        messages=messages,
        tool=tool,
        tools=tools,
        logprobs=logprobs,
        offered=offered,
        rounds=_rounds(messages) if offered else 0,
    )


def read_completion(body: Any, seed: int) -> SimulatedRequest:
    """Parse the decoded body of a completion request, which has a prompt instead of messages.

    Raises:
        BadRequest: if the body is malformed, or has a parameter that is not supported.
    """
    fields = _fields(body, _TEXT)
    given: Any = fields.get("prompt")
    prompts = _texts(given)
    if prompts is None:
        raise BadRequest("prompt must be a text or a list of token ids")
    if len(prompts) > 1:
        raise BadRequest("prompt: several prompts in one request are not supported: send one request each")
    echo = _flag(fields, "echo")
    hashed: list[Any] = [str(seed), "prompt", prompts, *map(fields.get, ("temperature", "top_p", "seed"))]
    request = _common(fields, hashed, SimulatedRequest((), prompts, prompts, None, [], None, ()))
    limit = request.max_tokens if request.max_tokens is not None else 16  # OpenAI's default
    messages = [{"role": "user", "content": prompts[0]}]
    return request._replace(messages=messages, prompt=prompts[0], echo=echo, max_tokens=limit)


def read_embed(body: Any, seed: int) -> SimulatedEmbedRequest:
    """Parse the decoded body of an embeddings request to the model with that seed.

    Raises:
        BadRequest: if the body is malformed, or has a parameter that is not supported.
    """
    fields = _fields(body, _EMBEDDINGS)
    texts = _texts(fields.get("input"))
    if texts is None:
        raise BadRequest("input must be a text, or a list of at least one, or token ids in place of a text")
    size = fields.get("dimensions")
    if size is not None and not (_is_whole(size) and 1 <= size <= MOST_DIMENSIONS):
        raise BadRequest(f"dimensions must be a whole number from 1 to {MOST_DIMENSIONS}")
    encoding = fields.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise BadRequest("encoding_format must be float or base64")
    draws = _drawn([str(seed), texts])
    return SimulatedEmbedRequest(draws, texts, size, encoding == "base64", fields.get("model"))


def _common(fields: dict[str, Any], hashed: list[Any], request: SimulatedRequest) -> SimulatedRequest:
    """Return the request with the parameters of both chats and completions, and the draws of `hashed`."""
    limits = [fields.get("max_completion_tokens"), fields.get("max_tokens")]
    limit = next((each for each in limits if each is not None), None)
    if limit is not None and not (_is_whole(limit) and limit >= 1):
        raise BadRequest("max_tokens must be a whole number of at least 1")
    stop: Any = fields.get("stop") or ()
    stops: Any = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list | tuple) or not all(map(_is_text, stops)):  # pyright: ignore[reportUnknownArgumentType] - of a client
        raise BadRequest("stop must be a text or a list of texts")
    n: Any = 1 if fields.get("n") is None else fields["n"]
    if not _is_whole(n) or not 1 <= n <= MOST_CHOICES:
        raise BadRequest(f"n must be a whole number from 1 to {MOST_CHOICES}")
    for name, most in (("temperature", 2), ("top_p", 1)):
        value: Any = fields.get(name)
        if value is not None and not (isinstance(value, int | float) and 0 <= value <= most):
            raise BadRequest(f"{name} must be a number from 0 to {most}")
    sampling = {name: fields[name] for name in _SAMPLING if fields.get(name) is not None}
    if sampling:
        hashed.append(sampling)
    stream = _flag(fields, "stream")
    return request._replace(
        draws=_drawn(hashed),
        max_tokens=limit,
        stop=stops,
        n=n,
        stream=stream,
        stream_usage=_stream_usage(fields, stream),
        model=fields.get("model"),
    )


def _fields(body: Any, known: frozenset[str] | set[str]) -> dict[str, Any]:
    """Return the members of a body, all of which must be known."""
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    fields = cast("dict[str, Any]", body)
    model = fields.get("model")
    if model is not None and not isinstance(model, str):
        raise BadRequest("model must be a text")
    for name, value in fields.items():
        if name not in known and value is not None and value not in _OFF.get(name, ()):
            raise BadRequest(
                f"{name} is not supported by the simulated model: leave it out"
                + (f", or set it to {_OFF[name][0]!r}" if name in _OFF else ""),
                "unsupported_parameter",
            )
    return fields


def _flag(fields: dict[str, Any], name: str) -> bool:
    value = fields.get(name)
    if not isinstance(value, bool | None):
        raise BadRequest(f"{name} must be true or false")
    return bool(value)


def _stream_usage(fields: dict[str, Any], stream: bool) -> bool:
    given = fields.get("stream_options")
    if given is None:
        return False
    if not stream:
        raise BadRequest("stream_options needs stream=true")
    options = cast("dict[str, Any]", given)
    known = isinstance(given, dict) and options.keys() <= {"include_usage", "include_obfuscation"}
    if not known or options.get("include_obfuscation"):
        raise BadRequest("stream_options may have include_usage, and nothing else")
    return _flag(options, "include_usage")


def _drawn(hashed: list[Any]) -> tuple[int, ...]:
    return _DRAWS.unpack(hashlib.sha256(orjson.dumps(hashed)).digest())


def _tools(body: dict[str, Any], hashed: list[Any]) -> tuple[Tool | None, dict[str, dict[str, Any]], int]:
    """Return the function to call, those that may be called, and the length of all descriptions in tokens.

    Tools are added to the hash. With `required` the function is chosen at random.
    """
    tools, choice = body.get("tools"), body.get("tool_choice") or "auto"
    if not tools:
        if body.get("tool_choice") is not None:
            raise BadRequest("tool_choice needs tools")
        return None, {}, 0
    hashed += [tools, choice]
    try:
        if any(tool.get("type", "function") != "function" for tool in tools):
            raise BadRequest("only tools of type function are supported")
        functions: dict[str, dict[str, Any]] = {
            tool["function"]["name"]: dict(tool["function"].get("parameters") or {}) for tool in tools
        }
        length = len(orjson.dumps(tools)) // CHARS_PER_TOKEN
        if choice in ("auto", "none"):
            return None, functions if choice == "auto" else {}, length
        named = choice != "required"
        if named:
            name = choice["function"]["name"]
        else:
            name = sorted(functions)[_drawn(hashed)[0] % len(functions)]
        return Tool(name, functions[name], named), {}, length
    except (KeyError, TypeError, AttributeError) as error:
        raise BadRequest("tools or tool_choice is malformed, or no tool has the name chosen") from error


def _rounds(messages: Sequence[Mapping[str, Any]]) -> int:
    """Return the number of messages with calls since the last message of the user."""
    roles = [message.get("role") for message in messages]
    last = max((number for number, role in enumerate(roles) if role == "user"), default=-1)
    return sum(bool(message.get("tool_calls")) for message in messages[last + 1 :])


def _logprobs(body: dict[str, Any]) -> int | None:
    most = body.get("top_logprobs")
    if not _flag(body, "logprobs"):
        if most:
            raise BadRequest("top_logprobs needs logprobs=true")
        return None
    if most is not None and not (_is_whole(most) and 0 <= most <= MOST_LOGPROBS):
        raise BadRequest(f"top_logprobs must be a whole number from 0 to {MOST_LOGPROBS}")
    return most or 0


def _constraint(body: dict[str, Any]) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the schema of the reply, if any, and the choices if the reply is to be one of them unwrapped."""
    try:
        if (structured := body.get("structured_outputs")) is not None:
            if structured.keys() == {"choice"}:
                return choice_schema(structured["choice"]), structured["choice"]
            if structured.keys() == {"json"}:
                return dict(structured["json"]), []
            raise BadRequest("structured_outputs must have either choice or json, and nothing else")
        asked: Any = body.get("response_format") or {"type": "text"}
        kind = asked["type"]
        if kind == "json_schema":
            return dict(asked["json_schema"]["schema"]), []
        if kind not in ("text", "json_object"):
            raise BadRequest(
                f"response_format.type {kind!r} is not supported: text, json_object, json_schema"
            )
        return _ANY_OBJECT if kind == "json_object" else None, []
    except (KeyError, TypeError, AttributeError) as error:
        raise BadRequest("response_format or structured_outputs is malformed") from error


def _texts(given: Any) -> list[str] | None:
    """Return a text or several, of which each may be given by token ids; None if there is anything else."""
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list) or not given:
        return None
    items = cast("list[Any]", given)
    if all(map(_is_token, items)):
        return [_spelled(items)]
    if all(map(_is_tokens, items)):
        return list(map(_spelled, items))
    return items if all(map(_is_text, items)) else None


def _spelled(tokens: list[int]) -> str:
    """Return a text of as many tokens, different for different ones."""
    return "".join(f"{token:0{CHARS_PER_TOKEN}x}" for token in tokens)


def _is_tokens(value: Any) -> bool:
    items = cast("list[Any]", value) if isinstance(value, list) else []
    return bool(items) and all(map(_is_token, items))


def _is_token(value: Any) -> bool:
    return _is_whole(value) and 0 <= value < 1 << 31


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _text(message: Any) -> str:
    """Return the text of a message; parts that are not text have none."""
    try:
        if message.get("role", "user") not in _ROLES:
            raise BadRequest(f"role {message['role']!r} is not supported: {', '.join(_ROLES)}")
        content = message.get("content")
        if isinstance(content, str):
            return content
        for part in content or ():
            if part.get("type", "text") not in _PARTS:
                raise BadRequest(f"a part of type {part['type']!r} is not supported: {', '.join(_PARTS)}")
        return "\n".join(part.get("text") or "" for part in content or ())
    except (AttributeError, TypeError) as error:
        raise BadRequest("each message must be an object whose content is text or a list of parts") from error
