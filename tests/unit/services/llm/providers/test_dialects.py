"""What each dialect makes of a request: the same conversation, in the provider's own form."""

from typing import Any

import orjson
import pytest

from peerloom.errors import ConfigError, LLMRejected
from peerloom.services.llm.base import ChatRequest
from peerloom.services.llm.hosted.service import addresses
from peerloom.services.llm.providers.anthropic import AnthropicDialect
from peerloom.services.llm.providers.azure import AzureDialect
from peerloom.services.llm.providers.dialect import Dialect
from peerloom.services.llm.providers.gemini import GeminiDialect
from peerloom.services.llm.providers.openai import OpenAIDialect
from peerloom.services.llm.wire_format.chat import split_thought, to_reply

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aWNl"}}
LINKED = {"type": "image_url", "image_url": {"url": "https://x/ice.webp"}}
SOUND = {"type": "input_audio", "input_audio": {"data": "aWNl", "format": "mp3"}}
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city":"Oslo"}'},
}
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "What is it?"}, IMAGE, LINKED]},
    {"role": "assistant", "content": None, "tool_calls": [CALL, {**CALL, "id": "call_2"}]},
    {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
    {"role": "tool", "tool_call_id": "call_2", "content": "snow"},
    {"role": "user", "content": "So?"},
]
TOOL = {"type": "function", "function": {"name": "weather", "description": "Of a city."}}
SCHEMA = {"type": "array", "items": {"type": "integer"}}


def body_of(dialect: Dialect, messages: list[dict[str, Any]], **asked: Any) -> dict[str, Any]:
    return orjson.loads(dialect.chat(ChatRequest(messages=messages, **asked), "m").body)


@pytest.mark.parametrize("dialect", [OpenAIDialect(), AzureDialect()])
def test_openai_gets_messages_as_they_are(dialect) -> None:
    talk = [*TALK, {"role": "user", "content": [SOUND]}]
    assert body_of(dialect, talk)["messages"] == talk


def test_anthropic_gets_blocks() -> None:
    body = body_of(AnthropicDialect(), TALK, temperature=0.5, stop=("\n",), seed=3)
    assert (body["system"], body["max_tokens"], body["stop_sequences"]) == ("Be brief.", 4096, ["\n"])
    assert "seed" not in body
    used = {"type": "tool_use", "name": "weather", "input": {"city": "Oslo"}}
    assert body["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aWNl"}},
                {"type": "image", "source": {"type": "url", "url": "https://x/ice.webp"}},
            ],
        },
        {"role": "assistant", "content": [{**used, "id": "call_1"}, {**used, "id": "call_2"}]},
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": f"call_{n}",
                    "content": [{"type": "text", "text": text}],
                }
                for n, text in ((1, "rain"), (2, "snow"))
            ]
            + [{"type": "text", "text": "So?"}],
        },
    ]


def test_gemini_gets_contents_and_parts() -> None:
    body = body_of(GeminiDialect(), [*TALK, {"role": "user", "content": [SOUND]}], max_tokens=9, seed=3)
    assert body["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
    assert body["generationConfig"] == {"maxOutputTokens": 9, "seed": 3}
    called = {"functionCall": {"name": "weather", "args": {"city": "Oslo"}}}
    answers = [
        {"functionResponse": {"name": "weather", "response": {"result": text}}} for text in ("rain", "snow")
    ]
    sound = {"inlineData": {"mimeType": "audio/mp3", "data": "aWNl"}}
    assert body["contents"] == [
        {
            "role": "user",
            "parts": [
                {"text": "What is it?"},
                {"inlineData": {"mimeType": "image/png", "data": "aWNl"}},
                {"fileData": {"mimeType": "image/webp", "fileUri": "https://x/ice.webp"}},
            ],
        },
        {"role": "model", "parts": [called, called]},
        {"role": "user", "parts": [*answers, {"text": "So?"}, sound]},
    ]


def test_what_a_provider_signed_goes_back_with_the_call() -> None:
    signed = [{"type": "thinking", "thinking": "Ask.", "signature": "c2ln"}]
    call = {**CALL, "extra_content": {"anthropic": signed}}
    (message,) = body_of(AnthropicDialect(), [{"role": "assistant", "content": "", "tool_calls": [call]}])[
        "messages"
    ]
    assert message["content"][0] == signed[0]
    assert message["content"][1]["type"] == "tool_use"
    call = {**CALL, "extra_content": {"google": {"thought_signature": "c2ln"}}}
    (content,) = body_of(GeminiDialect(), [{"role": "assistant", "content": "", "tool_calls": [call]}])[
        "contents"
    ]
    assert content["parts"][0]["thoughtSignature"] == "c2ln"


@pytest.mark.parametrize(
    ("choice", "anthropic", "gemini"),
    [
        ("auto", {"type": "auto"}, {"mode": "AUTO"}),
        ("none", {"type": "none"}, {"mode": "NONE"}),
        ("required", {"type": "any"}, {"mode": "ANY"}),
        (
            "weather",
            {"type": "tool", "name": "weather"},
            {"mode": "ANY", "allowedFunctionNames": ["weather"]},
        ),
    ],
)
def test_which_tools_must_be_called(choice: str, anthropic: Any, gemini: Any) -> None:
    asked = {"tools": (TOOL,), "tool_choice": choice}
    assert body_of(AnthropicDialect(), TALK, **asked)["tool_choice"] == anthropic
    assert body_of(GeminiDialect(), TALK, **asked)["toolConfig"] == {"functionCallingConfig": gemini}
    named = {"type": "function", "function": {"name": "weather"}}
    assert body_of(OpenAIDialect(), TALK, **asked)["tool_choice"] == (
        named if choice == "weather" else choice
    )


def test_anthropic_is_asked_for_a_schema_by_a_tool_or_a_format() -> None:
    wrapped = {
        "type": "object",
        "properties": {"answer": SCHEMA},
        "required": ["answer"],
        "additionalProperties": False,
    }
    body = body_of(AnthropicDialect(), TALK, schema=SCHEMA, max_tokens=5)
    assert body["tools"] == [{"name": "answer", "input_schema": wrapped}]
    assert body["tool_choice"] == {"type": "tool", "name": "answer"}
    assert body["max_tokens"] > 5, "the call around the answer must fit too"
    thinking = AnthropicDialect(extra_body={"thinking": {"type": "enabled", "budget_tokens": 1024}})
    for dialect, more in ((thinking, {}), (AnthropicDialect(), {"tools": (TOOL,)})):
        body = body_of(dialect, TALK, schema=SCHEMA, **more)
        assert body["output_config"] == {"format": {"type": "json_schema", "schema": wrapped}}
        assert len(body.get("tools", [])) == len(more)
    assert "tools" not in body_of(AnthropicDialect(structured="none"), TALK, schema=SCHEMA)
    reply = {
        "content": [{"type": "tool_use", "id": "1", "name": "answer", "input": {"answer": [1, 2]}}],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
    read = AnthropicDialect().reply(reply, ChatRequest(messages=TALK, schema=SCHEMA), 0.0)
    assert (read.text, read.finish_reason) == ("[1,2]", "stop")


def test_gemini_keeps_both_generation_configs() -> None:
    more = {"generationConfig": {"thinkingConfig": {"includeThoughts": True}}, "safetySettings": []}
    body = body_of(GeminiDialect(extra_body=more), TALK, temperature=0.5)
    assert body["generationConfig"] == {"temperature": 0.5, "thinkingConfig": {"includeThoughts": True}}
    assert body["safetySettings"] == []


def test_what_a_provider_cannot_take_is_refused() -> None:
    with pytest.raises(LLMRejected, match="takes no audio/mp3"):
        body_of(AnthropicDialect(), [{"role": "user", "content": [SOUND]}])
    with pytest.raises(LLMRejected, match="has no url"):
        body_of(GeminiDialect(), [{"role": "user", "content": [{"type": "image_url"}]}])


@pytest.mark.parametrize("made", [OpenAIDialect, AzureDialect, AnthropicDialect, GeminiDialect])
def test_impossible_options_are_refused(made) -> None:
    with pytest.raises(ConfigError, match=r"llm\.structured is 'xml': it must be one of"):
        made(structured="xml")
    with pytest.raises(ConfigError, match=r"llm\.max_tokens is 0"):
        AnthropicDialect(max_tokens=0)


def test_a_base_url_may_end_as_other_clients_want_it() -> None:
    assert addresses(AnthropicDialect(), "https://x/v1/") == ("https://x",)
    assert addresses(GeminiDialect(), ["https://x/v1beta", "https://y"]) == ("https://x", "https://y")
    assert addresses(AzureDialect(), "https://x/openai/") == ("https://x",)
    assert addresses(OpenAIDialect(), "https://x/v1") == ("https://x/v1",)
    with pytest.raises(ConfigError, match="names a server twice"):
        addresses(AnthropicDialect(), ["https://x/v1", "https://x"])


@pytest.mark.parametrize(
    ("said", "text", "thought"),
    [
        ("<think>2 + 2</think>\n\nIt is 4.", "It is 4.", "2 + 2"),
        ("2 + 2\n</think>It is 4.", "It is 4.", "2 + 2"),
        ("<think>2 + 2 is", "", "2 + 2 is"),
        ("It is 4.", "It is 4.", ""),
        (" Write <think>x</think> first.", " Write <think>x</think> first.", ""),
        ("", "", ""),
    ],
)
def test_thoughts_in_the_text_are_split_off(said: str, text: str, thought: str) -> None:
    assert split_thought(said) == (text, thought)
    payload = {"choices": [{"message": {"role": "assistant", "content": said}}]}
    reply = to_reply(payload, ChatRequest(messages=TALK), wrapped=False, seconds=0.0)
    assert (reply.text, reply.reasoning, reply.message["content"]) == (text, thought, text)


def test_thoughts_and_token_ids_wherever_a_server_puts_them() -> None:
    def read(message: dict[str, Any], **choice: Any) -> Any:
        payload = {"choices": [{"message": {"role": "assistant", **message}, **choice}]}
        return to_reply(payload, ChatRequest(messages=TALK), wrapped=False, seconds=0.0)

    for message in (
        {"content": "4", "reasoning": "2 + 2"},
        {"content": "4", "reasoning_content": "2 + 2"},
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "2 + 2"}]},
                {"type": "text", "text": "4"},
            ]
        },
    ):
        reply = read(message)
        assert (reply.text, reply.reasoning) == ("4", "2 + 2")
        assert reply.message == {"role": "assistant", "content": "4"}
    assert read({"content": "4"}, token_ids=[19]).token_ids == [19]
    assert read(
        {"content": "4"}, logprobs={"content": [{"token": "4", "logprob": 0.0, "id": 19}]}
    ).token_ids == [19]
    assert read({"content": "4"}, token_ids="19").token_ids == []
