"""Replies as servers write them: unknown words, odd fields, broken encodings, streams nobody asked for."""

import json
from contextlib import suppress
from typing import Any

import orjson
import pytest

from peerloom.errors import ContentFiltered
from peerloom.services.llm.base import ChatReply, ChatRequest
from peerloom.services.llm.providers.anthropic import AnthropicDialect
from peerloom.services.llm.providers.dialect import Dialect
from peerloom.services.llm.providers.gemini import GeminiDialect
from peerloom.services.llm.providers.openai import OpenAIDialect
from peerloom.services.llm.retry import Retryable
from peerloom.services.llm.wire_format.finish_reasons import finish_reason
from peerloom.services.llm.wire_format.payloads import MalformedBody, payload_of
from peerloom.task import Usage

HELLO = ChatRequest(messages=[{"role": "user", "content": "Hello?"}])


def completion(
    finish: Any = "stop", content: Any = "Rain.", choice: Any = None, **fields: Any
) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, **fields.pop("message", {})}
    first = {"index": 0, "message": message, "finish_reason": finish, **(choice or {})}
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    return {"model": "m", "choices": [first], "usage": usage, **fields}


def read(payload: Any, dialect: Dialect | None = None) -> ChatReply:
    return (dialect or OpenAIDialect()).reply(payload, HELLO, 0.1)


@pytest.mark.parametrize(
    ("given", "meaning"),
    [
        ("stop", "stop"),
        (None, "stop"),
        ("eos_token", "stop"),
        ("STOP_SEQUENCE", "stop"),
        ("end_turn", "stop"),
        ("tool_use", "stop"),  # none was called
        ("LENGTH", "length"),
        ("maxTokens", "length"),
        ("model_length", "length"),
        ("model_context_window_exceeded", "length"),
        ("SAFETY", "content_filter"),
        ("guardrail_intervened", "content_filter"),
        ("abort", "error"),
        ("insufficient_system_resource", "error"),
        ("network_error", "error"),
        ("MALFORMED_FUNCTION_CALL", "error"),
        ("repetition", "length"),  # vLLM
        ("eos", "stop"),  # Together
        ("limit", "length"),  # llama.cpp
        ("word", "stop"),
        ("stopStringFound", "stop"),  # LM Studio
        ("contextLengthReached", "length"),
        ("modelUnloaded", "error"),
        ("timeout", "error"),  # TensorRT-LLM
        ("pause_turn", "stop"),  # Anthropic
        ("compaction", "length"),
        ("content_filtered", "content_filter"),  # Bedrock
        ("malformed_tool_use", "error"),
        ("STOP_CRITERIA_MET", "stop"),
        ("MODEL_ARMOR", "content_filter"),  # Vertex AI
        ("FinishReason.MAX_TOKENS", "length"),
        ("FINISH_REASON_UNSPECIFIED", "stop"),
        ("OTHER", "OTHER"),  # says nothing
        ("COMPLETE", "stop"),  # Cohere
        ("ERROR_LIMIT", "length"),
        ("USER_CANCEL", "error"),
        ("REASON_MAX_CONTEXT", "length"),  # xAI
        ("REASON_TIME_LIMIT", "error"),
        ("sensitive", "content_filter"),  # Zhipu
        ("load", "error"),  # Ollama
        ("nirvana", "nirvana"),
        ("a\nb\x1b[31m" + "c" * 50, "a b\ufffd[31m" + "c" * 32),
        (7, "7"),
    ],
)
def test_finish_reasons(given: Any, meaning: str) -> None:
    assert finish_reason(given) == meaning


@pytest.mark.parametrize(
    ("dialect", "broken_off", "withheld", "cut"),
    [
        (OpenAIDialect(), completion("abort"), completion("safety"), completion("model_length")),
        (
            AnthropicDialect(),
            {"content": [], "stop_reason": "error"},
            {"content": [], "stop_reason": "refusal"},
            {"content": [{"type": "text", "text": "Rain."}], "stop_reason": "max_tokens"},
        ),
        (
            GeminiDialect(),
            {"candidates": [{"finishReason": "OTHER"}]},
            {"candidates": [{"finishReason": "SPII"}]},
            {"candidates": [{"content": {"parts": [{"text": "Rain."}]}, "finishReason": "MAX_TOKENS"}]},
        ),
    ],
    ids=["openai", "anthropic", "gemini"],
)
def test_only_whole_replies_are_whole(dialect: Dialect, broken_off: Any, withheld: Any, cut: Any) -> None:
    with pytest.raises(Retryable, match="the reply broke off: "):
        read(broken_off, dialect)
    with pytest.raises(ContentFiltered):
        read(withheld, dialect)
    assert read(cut, dialect).finish_reason == "length"


def test_an_error_within_a_choice_is_one() -> None:
    with pytest.raises(Retryable, match="Upstream died") as failed:
        read(completion("error", choice={"error": {"code": 502, "message": "Upstream died"}}))
    assert failed.value.usage == Usage(10, 5, 0, 1), "what was answered is paid"


@pytest.mark.parametrize(
    "odd",
    [
        {"usage": []},
        {"usage": {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": []}},
        {"message": {"reasoning": ["hm", 5]}},
        {"message": {"tool_calls": "none"}},
        {"message": {"tool_calls": [None, 5]}},
        {"content": ["Ra", "in."]},
        {"content": [{"type": "output_text", "text": "Rain."}]},
        {"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Rain."}]},
        {"content": [{"type": "image"}, None, 7, {"type": "text", "text": "Rain."}]},
        {"model": {"name": "m"}},
        {"choice": {"logprobs": {"content": "none"}}},
        {"content": [{"type": "text", "text": {"value": "Rain.", "annotations": []}}]},
        {"choice": {"logprobs": 7, "token_ids": ["a"]}},
    ],
    ids=str,
)
def test_fields_that_are_not_needed_do_not_spoil_a_reply(odd: dict[str, Any]) -> None:
    reply = read(completion(**odd))
    assert (reply.text, reply.finish_reason, reply.tool_calls) == ("Rain.", "stop", [])
    assert orjson.loads(orjson.dumps(reply.message))


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 5}, (10, 5)),
        ({"prompt_tokens": 10.0, "completion_tokens": "5"}, (10, 5)),
        ({"input_tokens": 10, "output_tokens": 5}, (10, 5)),
        ({"prompt_tokens": 2**63, "completion_tokens": 10**30}, (0, 0)),
        ({"prompt_tokens": -1, "completion_tokens": True}, (0, 0)),
        ({"prompt_tokens": 1.5, "completion_tokens": "1e3"}, (0, 0)),
        ({"prompt_tokens": None}, (0, 0)),
        (None, (0, 0)),
    ],
)
def test_counts_of_tokens_are_numbers_or_unknown(usage: Any, tokens: tuple[int, int]) -> None:
    reply = read(completion(usage=usage))
    assert (reply.usage.prompt, reply.usage.completion) == tokens
    assert reply.usage.calls == 1


def as_python_writes_it(payload: Any) -> bytes:
    return json.dumps(payload).encode()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (as_python_writes_it(completion(content="smile \ud83d end")), "smile \ufffd end"),
        (as_python_writes_it(completion(content="smile \ud83d\ude00 end")), "smile \U0001f600 end"),
        (as_python_writes_it(completion(metrics={"x": float("nan"), "y": float("-inf")})), "Rain."),
        (as_python_writes_it(completion()).replace(b"Rain", b"Caf\xe2\x82"), "Caf\ufffd."),
        (b"\xef\xbb\xbf" + as_python_writes_it(completion()), "Rain."),
        (as_python_writes_it(completion()).replace(b"10", b"1e999"), "Rain."),
        (as_python_writes_it(completion()).replace(b"10", b"[" * 500 + b"]" * 500), "Rain."),
        (as_python_writes_it(completion()).replace(b"10", b"9" * 401), "Rain."),
        (as_python_writes_it(completion(created=7)).replace(b"7", b"9" * 5000), "Rain."),
        (as_python_writes_it(completion(content="a?b")).replace(b"?", b"\n\t\x01"), "a\n\t\x01b"),
    ],
)
def test_bodies_that_are_almost_json(body: bytes, text: str) -> None:
    reply = read(payload_of(body))
    assert reply.text == text
    assert orjson.loads(orjson.dumps(reply.message))["content"] == text


def stream(*events: Any, end: str = "data: [DONE]\n\n") -> bytes:
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode() + end.encode()


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": fields, "finish_reason": finish}],
    }


def test_a_stream_that_nobody_asked_for_is_put_together() -> None:
    called = {"index": 0, "id": "c1", "function": {"name": "look", "arguments": '{"a"'}}
    body = stream(
        delta(role="assistant", content=""),
        delta(reasoning_content="hm"),
        delta(content="Rain "),
        delta(content="in Oslo."),
        delta(tool_calls=[called]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": ": 1}"}}]),
        delta("tool_calls"),
        {"model": "m", "choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5}},
    )
    reply = read(payload_of(body))
    assert (reply.text, reply.reasoning, reply.finish_reason) == ("Rain in Oslo.", "hm", "tool_calls")
    assert [call["function"] for call in reply.tool_calls] == [{"name": "look", "arguments": '{"a": 1}'}]
    assert reply.usage == Usage(10, 5, 0, 1)


@pytest.mark.parametrize(
    ("events", "text"),
    [
        ([delta(content="Ra"), delta("stop", content="in.")], "Rain."),
        (
            [
                {
                    **delta("stop"),
                    "choices": [{"index": "0", "delta": {"content": "Rain."}, "finish_reason": "stop"}],
                }
            ],
            "Rain.",
        ),
        (
            [
                delta(content=[{"type": "text", "text": "Ra"}]),
                delta("stop", content=[{"type": "text", "text": "in."}]),
            ],
            "Rain.",
        ),
        ([delta(content="smile \ud83d"), delta("stop", content="\ude00")], "smile \U0001f600"),
        ([delta(content="smile \ud83d"), delta("stop", content=" end")], "smile \ufffd end"),
    ],
)
@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_no_word_of_a_stream_is_lost(events: list[Any], text: str, newline: bytes) -> None:
    reply = read(payload_of(stream(*events).replace(b"\n", newline)))
    assert reply.text == text
    assert orjson.loads(orjson.dumps(reply.message))["role"] == "assistant"


def test_a_stream_is_whole_if_it_says_so() -> None:
    assert read(payload_of(stream(delta(content="Rain.")))).text == "Rain."
    with pytest.raises(MalformedBody, match="breaks off"):
        payload_of(stream(delta(content="data: [DONE]"), end=""))


@pytest.mark.parametrize(
    "broken",
    [
        completion(error={"code": 502, "message": "upstream died"}),
        completion(error="upstream died"),
        completion(message={"error": {"message": "upstream died"}}),
        completion(choice={"error": {"message": "upstream died"}}),
    ],
    ids=["beside", "text", "in the message", "in the choice"],
)
def test_a_reply_with_an_error_broke_off(broken: dict[str, Any]) -> None:
    with pytest.raises(Retryable, match="the reply broke off: upstream died"):
        read(broken)
    assert read(completion(error=None)).text == read(completion(error={})).text == "Rain."


def test_a_field_that_is_not_needed_costs_no_reply() -> None:
    odd = {"x": 2**70, "y": float("nan")}
    assert read(payload_of(as_python_writes_it(completion(metrics=odd)))).text == "Rain."
    assert read(payload_of(stream({**delta("stop", content="Rain."), "created": 2**70}))).text == "Rain."


def test_a_stream_that_is_nested_too_deep_is_no_reply_and_no_crash() -> None:
    for depth in (500, 900, 950, 980, 990, 995):
        deep = b"[" * depth + b"]" * depth
        body = stream(delta("stop", content="Rain.")).replace(b'"Rain."', b'"Rain.", "x": ' + deep)
        with suppress(MalformedBody):
            assert read(payload_of(body)).text == "Rain."


@pytest.mark.parametrize("role", [5, "user", None])
def test_a_reply_is_the_assistants(role: Any) -> None:
    assert read(completion(message={"role": role})).message["role"] == "assistant"


@pytest.mark.parametrize(
    "body",
    [
        b"<html>welcome</html>",
        b'{"choices": [{"mess',
        b"[" * 100_000,
        stream(delta(content="Rain "), end=""),
        stream({"type": "message_start"}),
        b"data: {broken\n\n",
        b'{"a": ' + b"9" * 5000 + b"e",
    ],
)
def test_bodies_that_are_no_reply(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        payload_of(body)
