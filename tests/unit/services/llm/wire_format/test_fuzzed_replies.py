"""Random damage to replies of each dialect, followed from the bytes of the body to the row."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import orjson
import pytest

from peerloom.agents.llm import LLMAgent
from peerloom.errors import LLMUnavailable
from peerloom.runtime.steps.executor import StepExecutor
from peerloom.runtime.steps.recorded_calls import RecordedCalls, save
from peerloom.services.llm.base import ChatReply, ChatRequest
from peerloom.services.llm.providers.anthropic import AnthropicDialect
from peerloom.services.llm.providers.azure import AzureDialect
from peerloom.services.llm.providers.dialect import Dialect
from peerloom.services.llm.providers.gemini import GeminiDialect
from peerloom.services.llm.providers.openai import OpenAIDialect
from peerloom.services.llm.retry import Retryable
from peerloom.services.llm.wire_format.payloads import MalformedBody, payload_of
from peerloom.sink.rows import render
from peerloom.stored import from_stored
from peerloom.task import Header, TaskId, new_task
from peerloom.workflow import Sequence

SAID = "Rain in Oslo."
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
LOGPROBS = {"content": [{"token": "R", "logprob": -1, "top_logprobs": []}]}
MESSAGE = {"role": "assistant", "content": SAID, "reasoning_content": "hm", "tool_calls": [CALL]}
OPENAI = {
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": MESSAGE, "logprobs": LOGPROBS}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 1}},
}
ANTHROPIC = {
    "model": "m",
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": SAID},
        {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}},
    ],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 3, "output_tokens": 4, "cache_read_input_tokens": 1},
}
PARTS = [{"text": "hm", "thought": True}, {"text": SAID}, {"functionCall": {"name": "f", "args": {"a": 1}}}]
GEMINI = {
    "candidates": [{"content": {"role": "model", "parts": PARTS}, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4, "thoughtsTokenCount": 2},
    "modelVersion": "m",
}
DIALECTS: dict[str, tuple[Dialect, dict[str, Any]]] = {
    "openai": (OpenAIDialect(), OPENAI),
    "azure": (AzureDialect(), OPENAI),
    "anthropic": (AnthropicDialect(), ANTHROPIC),
    "gemini": (GeminiDialect(), GEMINI),
}
DEEP: list[Any] = []
for _ in range(150):
    DEEP = [DEEP]
JUNK = (
    *(None, True, 0, -1, 2**63, 2**64, 10**30, 1.5, 1e308, float("nan"), float("-inf"), "10", 10.0),
    *("", "\ud83d", "\x00\x1b[31m", "{}", "null", "a" * 5000, "<think>", "</think>x", "\u2028"),
    *([], {}, [None], [[]], [{}], {"a": None}, {"": {}}, {"text": 5}, {"type": "text"}, DEEP, {"code": 429}),
    *("length", "content_filter", "SAFETY", "MAX_TOKENS", "refusal", "error", "nobody knows this"),
)
NAMES = (
    "error",
    "content",
    "text",
    "role",
    "refusal",
    "reasoning",
    "type",
    "index",
    "usage",
    "finish_reason",
)
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
AGENTS = {
    "plain": LLMAgent("q", retries=0),
    "choice": LLMAgent("q", choices=("A", "B"), retries=0),
    "schema": LLMAgent("q", schema={"type": "object"}, retries=0),
    "tools": LLMAgent("q", tools=[TOOL], tool_choice="required", retries=0),
    "logprobs": LLMAgent("q", top_logprobs=2, retries=0),
}
Follow = Callable[[random.Random], Awaitable[str]]
"""Sends one damaged answer on its way, and names what became of it."""
REASONS = ("", "answer", "llm_unavailable", "max_tokens", "content_filter")


class Answers:
    """A model that answers one body, read by a dialect and kept by the journal on the way."""

    def __init__(self, dialect: Dialect, body: bytes) -> None:
        self.dialect, self.body = dialect, body
        self.reply: ChatReply | None = None

    async def chat(self, request: ChatRequest) -> ChatReply:
        try:
            reply = self.dialect.reply(payload_of(self.body), request, 0.1)
        except (MalformedBody, Retryable) as error:
            raise LLMUnavailable(str(error)) from error  # as the client does in the end
        saved = save(b"digest", reply)
        assert saved is not None, "the journal cannot keep the reply"
        self.reply = msgspec.msgpack.decode(RecordedCalls([saved]).pop(b"digest") or b"", type=ChatReply)
        assert self.reply == reply
        return reply

    async def close(self) -> None: ...


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to all that is inside a value."""
    inside = list(value.items()) if isinstance(value, dict) else []
    inside = list(enumerate(value)) if isinstance(value, list) and value is not DEEP else inside
    return [found for key, each in inside for found in ((*path, key), *places(each, (*path, key)))]


def damaged(chance: random.Random, value: dict[str, Any]) -> dict[str, Any]:
    """A copy with a few values replaced, removed, repeated or added."""
    value = json.loads(json.dumps(value))
    for _ in range(chance.choice((1, 1, 1, 2, 3, 5))):
        *path, last = chance.choice(places(value) or [("model",)])
        holder: Any = value
        for key in path:
            holder = holder[key]
        way = chance.random()
        if way < 0.2 and (isinstance(holder, list) or last in holder):
            del holder[last]
        elif way < 0.3 and isinstance(holder, list):
            holder.append(holder[last])
        elif way < 0.4 and isinstance(holder, dict):
            holder[chance.choice(NAMES)] = chance.choice(JUNK)
        else:
            holder[last] = chance.choice(JUNK)
        value = json.loads(json.dumps(value))
    return value


def body_of(chance: random.Random, value: dict[str, Any]) -> bytes:
    """Encoded as Python servers do it; now and then with damaged bytes too."""
    body = bytearray(json.dumps(value).encode())
    if chance.random() < 0.15:
        for _ in range(chance.choice((1, 3))):
            body[chance.randrange(len(body))] = chance.randrange(256)
        body = body[: chance.choice((len(body), chance.randrange(len(body))))]
    return bytes(body)


async def follow(chance: random.Random) -> str:
    """Send one damaged body all the way to its row, and return the row's reason."""
    dialect, whole = DIALECTS[chance.choice(list(DIALECTS))]
    role = chance.choice(list(AGENTS))
    body = body_of(chance, damaged(chance, whole))
    model = Answers(dialect, body)
    task = new_task(Header(TaskId(0, 0, 0), 1), {}, seed=1).with_next(role)
    done = await StepExecutor(Sequence(role), {role: AGENTS[role]}, model).step(task)
    assert done.end is not None
    row = from_stored(orjson.loads(render(done, done.turns, {}, [], {}, finished=0.0).line))
    assert row["reason"] in REASONS, (row["reason"], row.get("detail"), body)
    if row["outcome"] == "completed" and role == "plain":
        assert model.reply is not None
        assert row["turns"][0]["message"]["content"] == model.reply.text.strip()
    return row["reason"]


async def fuzz(seed: int, rounds: int, seconds: float = 1e9, follow: Follow = follow) -> Counter[str]:
    """Follow random replies, for so many rounds or seconds; how often each came out."""
    chance, seen = random.Random(seed), Counter[str]()
    until = time.monotonic() + seconds
    for number in range(rounds):
        try:
            seen[await follow(chance)] += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}, round {number}") from error
        if time.monotonic() > until:
            break
        if number % 100 == 0:
            await asyncio.sleep(0)
    return seen


async def test_damaged_replies_become_rows_or_defined_errors() -> None:
    seen = await fuzz(seed=13, rounds=1500)
    assert sum(seen.values()) == 1500
    assert all(seen[reason] for reason in REASONS), seen


@pytest.mark.parametrize(
    ("name", "field"),
    [
        (name, field)
        for name, (_, whole) in DIALECTS.items()
        for field in ("model", "usage", "modelVersion", "usageMetadata")
        if field in whole
    ],
)
async def test_the_text_survives_damage_to_fields_that_are_not_needed(name: str, field: str) -> None:
    dialect, whole = DIALECTS[name]
    for junk in JUNK:
        body = json.dumps({**whole, field: junk, "unknown": junk}).encode()
        model = Answers(dialect, body)
        assert (await model.chat(ChatRequest(messages=[]))).text == SAID, junk


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_damaged_replies_for_a_quarter_of_a_minute() -> None:
    assert sum((await fuzz(seed=1, rounds=1_000_000, seconds=15.0)).values()) > 1000
