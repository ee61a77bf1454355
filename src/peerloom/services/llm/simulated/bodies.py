"""What the simulated model sends: the bodies of OpenAI's interface, from what the laws made of a request."""

import hashlib
import math
import struct
import time
from base64 import b64encode
from typing import Any

from peerloom.services.llm.simulated.behavior import SimulatedReply
from peerloom.services.llm.simulated.request import CHARS_PER_TOKEN, SimulatedEmbedRequest, SimulatedRequest

PAGE = b"""<!DOCTYPE html>
<html><head><title>One moment</title></head><body><h1>We will be back shortly</h1></body></html>
"""
"""What a gateway puts in the place of an answer, with status 200."""

_DIMENSIONS = 256
_MULTIPLIER = 0x9E3779B1
_32_BITS = (1 << 32) - 1


def completion(made: SimulatedReply, model: str, ask: SimulatedRequest) -> dict[str, Any]:
    """A chat completion."""
    choice: dict[str, Any] = {"index": 0, "message": _message(made, ask), "finish_reason": made.finish_reason}
    if ask.logprobs is not None:
        choice["logprobs"] = {"content": _logprobs(made.text, ask.draws[0], ask.logprobs)}
    usage: dict[str, Any] = {
        "prompt_tokens": made.prompt,
        "completion_tokens": made.completion,
        "total_tokens": made.prompt + made.completion,
        "prompt_tokens_details": {"cached_tokens": made.cached},
    }
    if made.reasoning:
        usage["completion_tokens_details"] = {
            "reasoning_tokens": math.ceil(len(made.reasoning) / CHARS_PER_TOKEN)
        }
    return {
        "id": f"chatcmpl-{ask.draws[0]:08x}{ask.draws[1]:08x}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [choice],
        "usage": usage,
    }


def embeddings(ask: SimulatedEmbedRequest, model: str, seed: int) -> dict[str, Any]:
    """A list of vectors, one for each text."""
    size = ask.dimensions or _DIMENSIONS
    vectors = [_unit(text, seed, size) for text in ask.texts]
    data = [
        {"object": "embedding", "index": number, "embedding": _packed(vector) if ask.base64 else vector}
        for number, vector in enumerate(vectors)
    ]
    tokens = ask.prompt_tokens
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def error(message: str, code: str) -> dict[str, Any]:
    """An error, as OpenAI words it."""
    return {"error": {"message": message, "type": "simulated_error", "code": code}}


def _message(made: SimulatedReply, ask: SimulatedRequest) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": made.text}
    if made.reasoning:
        message["reasoning_content"] = made.reasoning
    if made.tool is not None:
        function = {"name": made.tool.name, "arguments": made.text}
        message["content"] = None
        message["tool_calls"] = [
            {"id": f"call_{ask.draws[2]:08x}{ask.draws[3]:08x}", "type": "function", "function": function}
        ]
    return message


def _logprobs(text: str, state: int, alternatives: int) -> list[dict[str, Any]]:
    """A record for each token, with others beside it; seeded, and the token itself the likeliest."""
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
    """A vector of length 1, another one for each text and seed."""
    raw = hashlib.shake_256(f"{seed}:{text}".encode(errors="replace")).digest(4 * size)
    numbers = struct.unpack(f"<{size}i", raw)
    length = math.hypot(*numbers) or 1.0
    return [number / length for number in numbers]


def _packed(vector: list[float]) -> str:
    return b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
