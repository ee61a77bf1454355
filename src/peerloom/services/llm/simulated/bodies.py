"""Encode the replies of the simulated model as response bodies of OpenAI's API."""

import hashlib
import math
import struct
import time
from base64 import b64encode
from typing import Any

from peerloom.services.llm.simulated.behavior import SimulatedReply
from peerloom.services.llm.simulated.request import CHARS_PER_TOKEN, SimulatedEmbedRequest, SimulatedRequest

_DIMENSIONS = 256
_MULTIPLIER = 0x9E3779B1
_32_BITS = (1 << 32) - 1


def encoded(
    reply: SimulatedReply, model: str, request: SimulatedRequest | SimulatedEmbedRequest, seed: int
) -> dict[str, Any]:
    """Return the body of the response to a request."""
    if isinstance(request, SimulatedEmbedRequest):
        return _embeddings(request, model, seed)
    if request.prompt is not None:
        return _text_completion(reply, model, request)
    return _completion(reply, model, request)


def _completion(reply: SimulatedReply, model: str, request: SimulatedRequest) -> dict[str, Any]:
    """Return the body of a chat completion."""
    choices: list[dict[str, Any]] = []
    for index, each in enumerate((reply, *reply.others)):
        choice: dict[str, Any] = {
            "index": index,
            "message": _message(each, request, index),
            "finish_reason": each.finish_reason,
        }
        if request.logprobs is not None:
            choice["logprobs"] = {"content": _logprobs(each.text, request.draws[0], request.logprobs)}
        choices.append(choice)
    return _body("chatcmpl", "chat.completion", choices, reply, model, request)


def _text_completion(reply: SimulatedReply, model: str, request: SimulatedRequest) -> dict[str, Any]:
    """Return the body of a completion of a prompt."""
    choices = [
        {"index": index, "text": each.text, "logprobs": None, "finish_reason": each.finish_reason}
        for index, each in enumerate((reply, *reply.others))
    ]
    return _body("cmpl", "text_completion", choices, reply, model, request)


def _body(
    prefix: str,
    kind: str,
    choices: list[dict[str, Any]],
    reply: SimulatedReply,
    model: str,
    request: SimulatedRequest,
) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "prompt_tokens": reply.prompt,
        "completion_tokens": reply.completion,
        "total_tokens": reply.prompt + reply.completion,
        "prompt_tokens_details": {"cached_tokens": reply.cached},
    }
    reasoning = sum(math.ceil(len(each.reasoning) / CHARS_PER_TOKEN) for each in (reply, *reply.others))
    if reasoning:
        usage["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return {
        "id": f"{prefix}-{request.draws[0]:08x}{request.draws[1]:08x}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "choices": choices,
        "usage": usage,
    }


def _embeddings(request: SimulatedEmbedRequest, model: str, seed: int) -> dict[str, Any]:
    """Return the body of an embeddings response, with a vector for each text."""
    size = request.dimensions or _DIMENSIONS
    vectors = [_unit(text, seed, size) for text in request.texts]
    data = [
        {"object": "embedding", "index": number, "embedding": _packed(vector) if request.base64 else vector}
        for number, vector in enumerate(vectors)
    ]
    tokens = request.prompt_tokens
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def _message(reply: SimulatedReply, request: SimulatedRequest, index: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.text}
    if reply.reasoning:
        message["reasoning_content"] = reply.reasoning
    if reply.tool is not None:
        function = {"name": reply.tool.name, "arguments": reply.text}
        message["content"] = None
        message["tool_calls"] = [
            {
                "id": f"call_{request.draws[2]:08x}{request.draws[3]:08x}{index or ''}",
                "type": "function",
                "function": function,
            }
        ]
    return message


def _logprobs(text: str, state: int, alternatives: int) -> list[dict[str, Any]]:
    """Return a seeded record for each token and its alternatives; the token itself is the likeliest."""
    found: list[dict[str, Any]] = []
    for at in range(0, len(text), CHARS_PER_TOKEN):
        state = (state * _MULTIPLIER + at + 1) & _32_BITS
        token = text[at : at + CHARS_PER_TOKEN]
        likeliest = 0.5 + state / 2**33  # at least a half, so that no other can be likelier
        record = _record(token, math.log(likeliest))
        rest = (1.0 - likeliest) / 2.0
        others = [_record(f"{token[:1]}{n}", math.log(rest / 2.0**n)) for n in range(1, alternatives)]
        found.append({**record, "top_logprobs": [record, *others][:alternatives]})
    return found


def _record(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": round(logprob, 6), "bytes": list(token.encode(errors="replace"))}


def _unit(text: str, seed: int, size: int) -> list[float]:
    """Return a vector of length 1, different for each text and seed."""
    raw = hashlib.shake_256(f"{seed}:{text}".encode(errors="replace")).digest(4 * size)
    numbers = struct.unpack(f"<{size}i", raw)
    length = math.hypot(*numbers) or 1.0
    return [number / length for number in numbers]


def _packed(vector: list[float]) -> str:
    return b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
