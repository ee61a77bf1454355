"""Encode a reply of the simulated model as server-sent events, as OpenAI's API streams it."""

from collections.abc import Iterator
from typing import Any

import orjson

from peerloom.services.llm.simulated.behavior import SimulatedBehavior
from peerloom.services.llm.simulated.request import CHARS_PER_TOKEN
from peerloom.services.llm.simulated.responses import Response

_TOKENS = 8  # of one event
_PIECE = _TOKENS * CHARS_PER_TOKEN


def events(body: dict[str, Any], *, usage: bool) -> bytes:
    """Return the events of the body of a completion; with `usage`, the last one has the token counts."""
    kind = body["object"]
    head = {key: body[key] for key in ("id", "created", "model")}
    head["object"] = "chat.completion.chunk" if kind == "chat.completion" else kind
    if usage:
        head["usage"] = None
    chunks = [
        {**head, "choices": [{"index": choice["index"], "finish_reason": None, **piece}]}
        for choice in body["choices"]
        for piece in (_chat_pieces(choice) if "message" in choice else _text_pieces(choice))
    ]
    if usage:
        chunks.append({**head, "choices": [], "usage": body["usage"]})
    return b"".join(b"data: %b\n\n" % orjson.dumps(chunk) for chunk in chunks) + b"data: [DONE]\n\n"


def as_stream(response: Response, tokens: int, behavior: SimulatedBehavior) -> Response:
    """Return the response sent over the time in which the tokens are generated."""
    generation = tokens / behavior.tokens_per_second if behavior.tokens_per_second else 0.0
    if response.content_type != b"text/html":
        response = response._replace(content_type=b"text/event-stream")
    if response.delay is None or not generation:
        return response
    return response._replace(
        delay=max(0.0, response.delay - generation), trickle=max(response.trickle, generation)
    )


def _chat_pieces(choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
    message, logprobs = choice["message"], choice.get("logprobs")
    yield {"delta": {"role": "assistant", "content": None if message.get("tool_calls") else ""}}
    for text in _cut(message.get("reasoning_content") or ""):
        yield {"delta": {"reasoning_content": text}}
    for number, text in enumerate(_cut(message["content"] or "")):
        piece: dict[str, Any] = {"delta": {"content": text}}
        if logprobs is not None:
            tokens = logprobs["content"][number * _TOKENS : (number + 1) * _TOKENS]
            piece["logprobs"] = {"content": tokens}
        yield piece
    for index, call in enumerate(message.get("tool_calls") or ()):
        function = {"name": call["function"]["name"], "arguments": ""}
        yield {"delta": {"tool_calls": [{"index": index, **call, "function": function}]}}
        for text in _cut(call["function"]["arguments"]):
            yield {"delta": {"tool_calls": [{"index": index, "function": {"arguments": text}}]}}
    yield {"delta": {}, "finish_reason": choice["finish_reason"]}


def _text_pieces(choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for text in _cut(choice["text"]):
        yield {"text": text, "logprobs": None}
    yield {"text": "", "logprobs": None, "finish_reason": choice["finish_reason"]}


def _cut(text: str) -> Iterator[str]:
    return (text[start : start + _PIECE] for start in range(0, len(text), _PIECE))
