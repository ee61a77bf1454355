"""Convert between our types and OpenAI's chat completions.

These pure functions are shared by the HTTP client and the simulated model, so both interpret requests alike.
If a server has no field for choices, they are sent as a schema `{"answer": <one of them>}` and the reply is
unwrapped, so that agents always get plain text.
"""

from collections.abc import Sequence
from typing import Any, Literal, cast

import orjson

from peerloom.errors import ContentFiltered
from peerloom.services.llm.base import ChatReply, ChatRequest, EmbedReply, EmbedRequest
from peerloom.services.llm.retry import Retryable
from peerloom.services.llm.wire_format.finish_reasons import finish_reason
from peerloom.services.llm.wire_format.payloads import MalformedBody, groups
from peerloom.task import Usage

Structured = Literal["auto", "json_schema", "choice", "none"]
"""How choices and schemas are sent: `json_schema` (OpenAI's response_format, the meaning of `auto`),
`choice` (choices in vLLM's `structured_outputs`, schemas as before), `none` (not at all)."""

_WRAP_TOKENS = 16  # for the braces and the key around a wrapped choice
_THINK, _THOUGHT, _TAG_END = "<think>", "</think>", "think>"
_THOUGHTS = ("thinking", "redacted_thinking", "reasoning")
_REASONING_FIELDS = ("reasoning", "reasoning_content", "reasoning_details")
_DIGITS = 12
_REFUSAL = 300  # maximum characters of a refusal in an error


def wraps(request: ChatRequest, structured: Structured) -> bool:
    """Return whether the choices of a request are sent as a schema."""
    return bool(request.choices) and structured in ("auto", "json_schema")


def to_body(
    request: ChatRequest, model: str, structured: Structured, limit_field: str = "max_tokens"
) -> dict[str, Any]:
    """Return the JSON body of a request. `limit_field` is the server's name of the token limit."""
    body: dict[str, Any] = {"model": model, "messages": request.messages}
    wrapped = wraps(request, structured)
    if request.max_tokens is not None:
        body[limit_field] = request.max_tokens + (_WRAP_TOKENS if wrapped else 0)
    body |= given(
        temperature=request.temperature,
        top_p=request.top_p,
        stop=list(request.stop) or None,
        seed=request.seed,
    )
    if wrapped:
        body["response_format"] = _response_format(choice_schema(request.choices))
    elif request.choices and structured == "choice":
        body["structured_outputs"] = {"choice": list(request.choices)}
    elif request.schema is not None and structured != "none":
        body["response_format"] = _response_format(request.schema)
    if request.tools:
        _add_tools(body, request)
    if request.top_logprobs is not None:
        body["logprobs"] = True
        body["top_logprobs"] = request.top_logprobs
    return body


def given(**options: Any) -> dict[str, Any]:
    """Return the options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def _add_tools(body: dict[str, Any], request: ChatRequest) -> None:
    body["tools"] = list(request.tools)
    if request.tool_choice in ("auto", "none", "required"):
        body["tool_choice"] = request.tool_choice
    elif request.tool_choice:
        body["tool_choice"] = {"type": "function", "function": {"name": request.tool_choice}}


def choice_schema(choices: Sequence[str]) -> dict[str, Any]:
    """Return the schema of an object whose only field, `answer`, is one of `choices`."""
    return {
        "type": "object",
        "properties": {"answer": {"type": "string", "enum": list(choices)}},
        "required": ["answer"],
        "additionalProperties": False,
    }


def unwrap(text: str, choices: Sequence[str]) -> str:
    """Return the choice in `{"answer": choice}`; `text` itself if it has another form."""
    try:
        answer = orjson.loads(text)["answer"]
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError):
        return text
    return cast("str", answer) if answer in choices else text


def to_reply(payload: Any, request: ChatRequest, *, wrapped: bool, seconds: float) -> ChatReply:
    """Return the reply in a decoded chat completion; malformed optional fields are dropped.

    Raises:
        MalformedBody: if the payload has no message.
        Retryable: if the reply was interrupted for a transient reason.
        ContentFiltered: if the provider withheld the reply, or the model refused to reply.
    """
    choice, message = _message(payload)
    usage = usage_of(payload.get("usage"))
    text, reasoning = _content(message)
    calls = groups(message.get("tool_calls"))
    logprobs, token_ids = _tokens(choice)
    refused = message.get("refusal")
    if refused and not text:
        raise ContentFiltered(f"the model refused: {str(refused)[:_REFUSAL]}", usage=usage)
    if wrapped:
        text = unwrap(text, request.choices)
    if reasoning or text != message.get("content") or (calls or None) != message.get("tool_calls"):
        message = {key: value for key, value in message.items() if key not in _REASONING_FIELDS}
        message["content"] = text or (None if calls else "")
        message["tool_calls"] = calls
        if not calls:
            del message["tool_calls"]
    if message.get("role") != "assistant":
        message = {**message, "role": "assistant"}
    failure, finish = _error_in(payload, choice, message), choice.get("finish_reason")
    return accepted(
        ChatReply(
            text=text,
            finish_reason="error" if failure else finish_reason(finish, called=bool(calls)),
            usage=usage,
            model=text_or_nothing(payload.get("model")),
            seconds=seconds,
            message=message,
            reasoning=reasoning,
            tool_calls=calls,
            logprobs=logprobs,
            token_ids=token_ids,
            fingerprint=text_or_nothing(payload.get("system_fingerprint")),
        ),
        failure or str(finish),
    )


def _error_in(*places: dict[str, Any]) -> str:
    """Return the message of an error that a gateway added to an interrupted reply; empty if there is none."""
    for place in places:
        error = place.get("error")
        if error:
            return str(group(error).get("message") or error)
    return ""


def _message(payload: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the first choice and its message; the text of a plain completion counts as a message."""
    try:
        choice = payload["choices"][0]
        if isinstance(choice["message"], dict):
            return choice, choice["message"]
    except (LookupError, TypeError):
        pass
    choices = groups(group(payload).get("choices"))
    if not choices:
        raise MalformedBody("it has no choices[0]")
    choice = choices[0]
    message = choice.get("message")
    if isinstance(message, dict):
        return choice, cast("dict[str, Any]", message)
    if isinstance(choice.get("text"), str):
        return choice, {"role": "assistant", "content": choice["text"]}
    raise MalformedBody("it has no choices[0].message")


def message_of(text: str, tool_calls: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a reply as an OpenAI chat message."""
    message: dict[str, Any] = {"role": "assistant", "content": text or (None if tool_calls else "")}
    if tool_calls:
        message["tool_calls"] = tool_calls
    return message


def split_thought(text: str) -> tuple[str, str]:
    """Return the content of a reply and its reasoning, for servers that do not separate them.

    The opening tag is optional, since a prompt may end with it. A reply that was cut within its reasoning has
    no content.

    >>> split_thought("<think>2 + 2</think> It is 4.")
    ('It is 4.', '2 + 2')
    """
    if _TAG_END not in text:
        return text, ""
    stripped = text.lstrip()
    opened = stripped.startswith(_THINK)
    thought, closed, content = stripped.removeprefix(_THINK).partition(_THOUGHT)
    if closed and (opened or _THINK not in thought):
        return content.strip(), thought.strip()
    return ("", thought.strip()) if opened else (text, "")


def _content(message: dict[str, Any]) -> tuple[str, str]:
    """Return the content and the reasoning of a message, from the fields that different servers use."""
    content: Any = message.get("content")
    reasoning = _text(message.get("reasoning_content")) or _text(message.get("reasoning"))
    if isinstance(content, list):  # Mistral's: parts, some of which are reasoning
        parts = cast("list[Any]", content)
        thoughts = [part for part in parts if group(part).get("type") in _THOUGHTS]
        reasoning = reasoning or "".join(_text(part.get("thinking")) for part in thoughts)
        content = "".join(_text(part) for part in parts if part not in thoughts)
    elif isinstance(content, dict):
        content = _text(content)
    elif content is None:
        content = ""
    if not isinstance(content, str):
        raise MalformedBody("its content is no text")
    return (content, reasoning) if reasoning else split_thought(content)


def _text(value: Any) -> str:
    """Return the text in a value: a string, an object with a text, or a list of either."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, list):
        return "".join(_text(item) for item in cast("list[Any]", value) if not isinstance(item, list))
    found = group(value)
    text: Any = found.get("text", found.get("content"))
    if isinstance(text, dict):  # OpenAI's assistants
        text = cast("dict[str, Any]", text).get("value")
    return text_or_nothing(text)


def to_vectors(payload: Any, request: EmbedRequest, seconds: float) -> EmbedReply:
    """Return the vectors in a decoded embeddings response.

    Raises:
        MalformedBody: if the payload has another form, or not a vector for each text.
    """
    try:
        data = sorted(payload["data"], key=lambda item: item["index"])
        vectors = [item["embedding"] for item in data]
        usage, model = usage_of(payload.get("usage")), text_or_nothing(payload.get("model"))
    except (KeyError, TypeError, AttributeError) as error:
        raise MalformedBody("it has no data[].embedding") from error
    if len(vectors) != len(request.texts) or not all(isinstance(vector, list) for vector in vectors):
        raise MalformedBody(f"it has {len(vectors)} vectors for {len(request.texts)} texts")
    return EmbedReply(vectors=vectors, usage=usage, model=model, seconds=seconds)


def accepted(reply: ChatReply, why: str) -> ChatReply:
    """Return `reply` if it is complete or was cut at a limit. `why` is the server's finish reason or error.

    Raises:
        ContentFiltered: if the provider withheld the reply.
        Retryable: if the reply was interrupted for a transient reason.
    """
    if reply.finish_reason == "error":
        raise Retryable(f"the reply broke off: {why[:_REFUSAL]}", usage=reply.usage)
    return unfiltered(reply)


def unfiltered(reply: ChatReply) -> ChatReply:
    """Return `reply` if the provider did not withhold it.

    Raises:
        ContentFiltered: if the provider withheld it.
    """
    if reply.finish_reason == "content_filter":
        withheld = f"the provider withheld the reply of {reply.model or 'the model'}"
        raise ContentFiltered(withheld, usage=reply.usage)
    return reply


def _tokens(choice: dict[str, Any]) -> tuple[list[dict[str, Any]], list[int]]:
    """Return log-probabilities and token ids; vLLM sends ids on request, llama.cpp with log-probabilities."""
    ids, logged = choice.get("token_ids"), choice.get("logprobs")
    if not ids and not logged:
        return [], []
    records = groups(group(logged).get("content"))
    return records, whole_numbers(ids or [record.get("id") for record in records])


def group(value: Any) -> dict[str, Any]:
    """Return a JSON object, or an empty one if the value is not an object."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def text_or_nothing(value: Any) -> str:
    """Return a string, or an empty one if the value is not a string."""
    return value if isinstance(value, str) else ""


def whole_numbers(values: Any) -> list[int]:
    """Return a list of token numbers, or an empty one if the value has another form."""
    numbers = cast("list[Any]", values) if isinstance(values, list) else []
    kept = all(type(each) is int and 0 <= each <= MOST_TOKENS for each in numbers)
    return cast("list[int]", numbers) if kept else []


MOST_TOKENS = 1_000_000_000
"""Larger numbers of tokens are treated as unknown, since the server must be wrong."""


def count(value: Any) -> int:
    """Return a number of tokens that a server sent as a number or a string; 0 if it is unknown."""
    if type(value) is not int:
        value = _whole(value)
    return value if 0 < value <= MOST_TOKENS else 0


def _whole(value: Any) -> int:
    """Return an integer from a float or a string; 0 for any other value."""
    if type(value) is str and value.isascii() and value.isdigit() and len(value) <= _DIGITS:
        return int(value)
    return int(value) if type(value) is float and value.is_integer() else 0


def usage_of(usage: Any) -> Usage:
    """Return the usage in a response, with 0 for missing or malformed counts."""
    fields = group(usage)
    details = fields.get("prompt_tokens_details")
    cached = count(group(details).get("cached_tokens")) if details else 0
    prompt = count(fields.get("prompt_tokens")) or count(fields.get("input_tokens"))
    completion = count(fields.get("completion_tokens")) or count(fields.get("output_tokens"))
    return Usage(prompt, completion, min(cached, prompt), 1)


def _response_format(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
