"""The simulated server implements the features of OpenAI's API, or refuses them in words."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from peerloom.services.llm.simulated.behavior import SimulatedBehavior
from peerloom.services.llm.simulated.server.app import ServerConfig, serving

HELLO = [{"role": "user", "content": "Does ice float?"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class Client:
    """Sends requests to a server and returns the status and the body."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    async def get(self, path: str) -> tuple[int, Any]:
        async with self._http.get(path) as answer:
            return answer.status, await answer.json()

    async def post(self, path: str = "chat/completions", **fields: Any) -> tuple[int, Any]:
        body = {"messages": HELLO, **fields} if path == "chat/completions" else fields
        async with self._http.post(f"/v1/{path}", json=body) as answer:
            return answer.status, await answer.json()

    async def good(self, path: str = "chat/completions", **fields: Any) -> Any:
        status, body = await self.post(path, **fields)
        assert status == 200, body
        return body

    async def stream(self, path: str = "chat/completions", **fields: Any) -> list[dict[str, Any]]:
        body = {**({"messages": HELLO} if path == "chat/completions" else {}), "stream": True, **fields}
        async with self._http.post(f"/v1/{path}", json=body) as answer:
            assert answer.status == 200
            assert answer.content_type == "text/event-stream"
            events = (await answer.text()).split("\n\n")
        assert events[-2:] == ["data: [DONE]", ""]
        return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


@asynccontextmanager
async def connected(strict_model: bool = False, **behavior: Any) -> AsyncIterator[Client]:
    config = ServerConfig(
        behavior=SimulatedBehavior(**behavior), port=0, strict_model=strict_model, model="a/b"
    )
    async with serving(config) as port, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
        yield Client(http)


def text(chunks: list[dict[str, Any]], index: int = 0) -> str:
    choices = [each for chunk in chunks for each in chunk["choices"] if each["index"] == index]
    return "".join(each["delta"].get("content") or "" for each in choices)


async def test_a_stream_is_the_reply_in_pieces() -> None:
    async with connected(rate_reasoning=1.0) as client:
        whole = await client.good(logprobs=True)
        chunks = await client.stream(logprobs=True, stream_options={"include_usage": True})
    message = whole["choices"][0]["message"]
    assert text(chunks) == message["content"]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
    assert "".join(each.get("reasoning_content", "") for each in deltas) == message["reasoning_content"]
    tokens = [
        token for chunk in chunks[:-1] for token in chunk["choices"][0].get("logprobs", {}).get("content", ())
    ]
    assert tokens == whole["choices"][0]["logprobs"]["content"]
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"] == whole["usage"]
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}


async def test_a_stream_without_usage_has_none() -> None:
    async with connected() as client:
        assert all("usage" not in chunk for chunk in await client.stream())


async def test_a_stream_takes_the_time_of_its_tokens() -> None:
    async with connected(tokens_per_second=5_000.0) as client:
        assert text(await client.stream()) == (await client.good())["choices"][0]["message"]["content"]


async def test_several_choices_are_different_and_the_first_is_the_only_one() -> None:
    async with connected() as client:
        one, four = await client.good(), await client.good(n=4)
        streamed = await client.stream(n=4)
    contents = [choice["message"]["content"] for choice in four["choices"]]
    assert len(set(contents)) == 4
    assert contents[0] == one["choices"][0]["message"]["content"]
    assert [text(streamed, index) for index in range(4)] == contents
    assert four["usage"]["completion_tokens"] > one["usage"]["completion_tokens"]
    assert four["usage"]["prompt_tokens"] == one["usage"]["prompt_tokens"]


async def test_json_objects() -> None:
    async with connected() as client:
        body = await client.good(response_format={"type": "json_object"})
    assert json.loads(body["choices"][0]["message"]["content"]).keys() == {"answer", "certainty"}


async def test_tools_are_called_as_often_as_configured_and_never_without_end() -> None:
    async with connected(tool_calls=0.5) as client:
        questions = [[{"role": "user", "content": f"question {n}"}] for n in range(40)]
        reasons = [
            (await client.good(messages=each, tools=[TOOL]))["choices"][0]["finish_reason"]
            for each in questions
        ]
        assert 8 < reasons.count("tool_calls") < 32
        none = await client.good(messages=questions[0], tools=[TOOL], tool_choice="none")
        assert none["choices"][0]["finish_reason"] == "stop"
    async with connected(tool_calls=1.0) as client:
        messages, calls = list(HELLO), 0
        while (message := (await client.good(messages=messages, tools=[TOOL]))["choices"][0]["message"]).get(
            "tool_calls"
        ):
            calls += 1
            (call,) = message["tool_calls"]
            assert "city" in json.loads(call["function"]["arguments"])
            messages += [message, {"role": "tool", "tool_call_id": call["id"], "content": "rain"}]
        assert calls == 4 and message["content"]


async def test_a_streamed_tool_call() -> None:
    async with connected(tool_calls=1.0) as client:
        whole = (await client.good(tools=[TOOL]))["choices"][0]["message"]["tool_calls"][0]
        deltas = [chunk["choices"][0]["delta"] for chunk in await client.stream(tools=[TOOL])]
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert calls[0]["id"] == whole["id"] and calls[0]["function"]["name"] == "weather"
    assert "".join(call["function"]["arguments"] for call in calls) == whole["function"]["arguments"]


async def test_completions_of_a_prompt() -> None:
    async with connected() as client:
        body = await client.good("completions", prompt="Ice is", max_tokens=10, n=2)
        chunks = await client.stream("completions", prompt="Ice is", max_tokens=10)
        echoed = await client.good("completions", prompt="Ice is", max_tokens=10, echo=True)
        tokens = await client.good("completions", prompt=[15496, 995])
        refused = await client.post("completions", prompt=["a", "b"])
    first = body["choices"][0]
    assert body["object"] == "text_completion" and len(body["choices"]) == 2
    assert 0 < len(first["text"]) <= 40 and first["finish_reason"] == "length"
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == first["text"]
    assert echoed["choices"][0]["text"] == "Ice is" + first["text"]
    assert tokens["usage"]["completion_tokens"] <= 16
    assert refused[0] == 400 and "one request each" in refused[1]["error"]["message"]


async def test_embeddings_of_token_ids() -> None:
    async with connected() as client:
        one = await client.good("embeddings", input=[1, 2, 3])
        two = await client.good("embeddings", input=[[1, 2, 3], [4]])
        refused = await client.post("embeddings", input=[1, "a"])
    assert one["data"][0]["embedding"] == two["data"][0]["embedding"] != two["data"][1]["embedding"]
    assert refused[0] == 400


async def test_models() -> None:
    async with connected() as client:
        status, model = await client.get("/v1/models/a/b")
        assert (status, model["id"]) == (200, "a/b")
        assert (await client.get("/v1/models"))[1]["data"] == [model]
        status, body = await client.get("/v1/models/other")
        assert (status, body["error"]["code"]) == (404, "model_not_found")
        assert (await client.post(model="other"))[0] == 200
    async with connected(strict_model=True) as client:
        status, body = await client.post(model="other")
        assert (status, body["error"]["code"]) == (404, "model_not_found")
        assert (await client.post())[0] == 400
        assert (await client.post(model="a/b"))[0] == 200
        assert (await client.post("embeddings", model="other", input="x"))[0] == 404


@pytest.mark.parametrize("fault", ["garbage", "cut", "slow", "content_type", "5xx"])
async def test_streams_have_faults_too(fault: str) -> None:
    async with connected(**{f"rate_{fault}": 1.0, "slow_seconds": 0.01}) as client:
        if fault == "slow":
            assert text(await client.stream())
            return
        with pytest.raises((AssertionError, aiohttp.ClientError, json.JSONDecodeError)):
            await client.stream()
