"""Between our types and OpenAI's chat completions: a request becomes a body, an answer a `ChatReply`.

Pure functions, shared by the HTTP client and the simulated model, so both mean the same by a request.
Where a server has no field for choices they are asked as a schema `{"answer": <one of them>}`, and the
reply is unwrapped again: an agent sees plain text either way.
"""

from collections.abc import Sequence
from typing import Any, Literal, cast

import orjson

from peerloom.errors import ContentFiltered
from peerloom.services.llm.base import ChatReply, ChatRequest
from peerloom.task import Usage

Structured = Literal["auto", "json_schema", "choice", "none"]
"""How choices and schemas are asked for: `json_schema` (OpenAI's response_format; what `auto` means),
`choice` (choices in vLLM's `structured_outputs`, schemas as before), `none` (not at all)."""

_WRAP_TOKENS = 16  # what the braces and the key around a wrapped choice may cost


class MalformedBody(Exception):
    """A body that is no chat completion."""


def wraps(request: ChatRequest, structured: Structured) -> bool:
    """Whether this request's choices are asked as a schema."""
    return bool(request.choices) and structured in ("auto", "json_schema")


def to_body(
    request: ChatRequest, model: str, structured: Structured, limit_field: str = "max_tokens"
) -> dict[str, Any]:
    """The JSON body that asks for `request`. `limit_field` is what this server calls the token limit."""
    body: dict[str, Any] = {"model": model, "messages": request.messages}
    wrapped = wraps(request, structured)
    if request.max_tokens is not None:
        body[limit_field] = request.max_tokens + (_WRAP_TOKENS if wrapped else 0)
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.top_p is not None:
        body["top_p"] = request.top_p
    if request.stop:
        body["stop"] = list(request.stop)
    if request.seed is not None:
        body["seed"] = request.seed
    if wrapped:
        body["response_format"] = _response_format(choice_schema(request.choices))
    elif request.choices and structured == "choice":
        body["structured_outputs"] = {"choice": list(request.choices)}
    elif request.schema is not None and structured != "none":
        body["response_format"] = _response_format(request.schema)
    return body


def choice_schema(choices: Sequence[str]) -> dict[str, Any]:
    """The schema of an object whose only field, `answer`, is one of `choices`."""
    return {
        "type": "object",
        "properties": {"answer": {"type": "string", "enum": list(choices)}},
        "required": ["answer"],
        "additionalProperties": False,
    }


def unwrap(text: str, choices: Sequence[str]) -> str:
    """The choice inside `{"answer": choice}`; `text` itself if it is no such thing."""
    try:
        answer = orjson.loads(text)["answer"]
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError):
        return text
    return cast("str", answer) if answer in choices else text


def to_reply(payload: Any, request: ChatRequest, *, wrapped: bool, seconds: float) -> ChatReply:
    """The reply in a decoded chat completion.

    Raises:
        MalformedBody: if `payload` is not shaped like one.
        ContentFiltered: if the provider withheld the reply.
    """
    try:
        choice = payload["choices"][0]
        message = choice["message"]
        text = message.get("content") or ""
        finish = choice.get("finish_reason") or "stop"
        usage = _usage(payload.get("usage"))
        model = payload.get("model") or ""
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise MalformedBody("it has no choices[0].message") from error
    if not isinstance(text, str) or not isinstance(finish, str) or not isinstance(model, str):
        raise MalformedBody("its content, finish_reason or model is no text")
    if wrapped:
        plain = unwrap(text, request.choices)
        if plain is not text:
            message = {**message, "content": plain}
            text = plain
    reply = ChatReply(
        text=text, finish_reason=finish, usage=usage, model=model, seconds=seconds, message=message
    )
    return unfiltered(reply)


def unfiltered(reply: ChatReply) -> ChatReply:
    """`reply`, if the provider did not withhold it.

    Raises:
        ContentFiltered: if it did.
    """
    if reply.finish_reason == "content_filter":
        raise ContentFiltered(f"the provider withheld the reply of {reply.model or 'the model'}")
    return reply


def _usage(usage: Any) -> Usage:
    if not usage:
        return Usage(calls=1)
    details = usage.get("prompt_tokens_details")
    return Usage(
        usage.get("prompt_tokens") or 0,
        usage.get("completion_tokens") or 0,
        (details.get("cached_tokens") or 0) if details else 0,
        1,
    )


def _response_format(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
