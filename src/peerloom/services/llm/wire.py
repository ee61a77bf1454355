"""Between our types and OpenAI's chat completions: a request becomes a body, an answer a `ChatReply`.

Pure functions, shared by the HTTP client and the simulated model, so both mean the same by a request.
Where a server has no field for choices they are asked as a schema `{"answer": <one of them>}`, and the
reply is unwrapped again: an agent sees plain text either way.
"""

from collections.abc import Sequence
from typing import Any, Literal, cast

import orjson

from peerloom.errors import ContentFiltered
from peerloom.services.llm.base import ChatReply, ChatRequest, EmbedReply, EmbedRequest
from peerloom.services.llm.dialect import MalformedBody
from peerloom.task import Usage

Structured = Literal["auto", "json_schema", "choice", "none"]
"""How choices and schemas are asked for: `json_schema` (OpenAI's response_format; what `auto` means),
`choice` (choices in vLLM's `structured_outputs`, schemas as before), `none` (not at all)."""

_WRAP_TOKENS = 16  # what the braces and the key around a wrapped choice may cost


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
    for name, value in (
        ("temperature", request.temperature),
        ("top_p", request.top_p),
        ("stop", list(request.stop) or None),
        ("seed", request.seed),
    ):
        if value is not None:
            body[name] = value
    if wrapped:
        body["response_format"] = _response_format(choice_schema(request.choices))
    elif request.choices and structured == "choice":
        body["structured_outputs"] = {"choice": list(request.choices)}
    elif request.schema is not None and structured != "none":
        body["response_format"] = _response_format(request.schema)
    if request.tools:
        _ask_for_tools(body, request)
    if request.top_logprobs is not None:
        body["logprobs"] = True
        body["top_logprobs"] = request.top_logprobs
    return body


def _ask_for_tools(body: dict[str, Any], request: ChatRequest) -> None:
    body["tools"] = list(request.tools)
    if request.tool_choice in ("auto", "none", "required"):
        body["tool_choice"] = request.tool_choice
    elif request.tool_choice:
        body["tool_choice"] = {"type": "function", "function": {"name": request.tool_choice}}


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


def to_vectors(payload: Any, request: EmbedRequest, seconds: float) -> EmbedReply:
    """The vectors in a decoded answer of OpenAI's embeddings.

    Raises:
        MalformedBody: if `payload` is not shaped like one, or has not a vector for each text.
    """
    try:
        data = sorted(payload["data"], key=lambda item: item["index"])
        vectors = [item["embedding"] for item in data]
        usage, model = _usage(payload.get("usage")), payload.get("model") or ""
    except (KeyError, TypeError, AttributeError) as error:
        raise MalformedBody("it has no data[].embedding") from error
    if len(vectors) != len(request.texts) or not all(isinstance(vector, list) for vector in vectors):
        raise MalformedBody(f"it has {len(vectors)} vectors for {len(request.texts)} texts")
    return EmbedReply(vectors=vectors, usage=usage, model=model, seconds=seconds)


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
