"""Servers that do not hold answers to choices or schemas: asked in another way, and said once."""

from typing import Any

import pytest
from stand_in import stand_in

from peerloom.errors import LLMRejected
from peerloom.services.llm.base import ChatReply, ChatRequest
from peerloom.services.llm.client.client import ReplicatedClientSpec
from peerloom.services.llm.client.context import ClientContext
from peerloom.services.llm.hosted.backend import HttpDial
from peerloom.services.llm.http.endpoint import Endpoint
from peerloom.services.llm.providers.openai import OpenAIDialect
from peerloom.services.llm.retry import Retry
from peerloom.services.llm.wire_format.chat import Structured

ASK = ChatRequest(messages=[{"role": "user", "content": "Is it A?"}], choices=("A", "B"))
PROSE = "I think that it is A."


def said(content: str, finish: str = "stop") -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    usage = {"prompt_tokens": 5, "completion_tokens": 2}
    return {
        "status": 200,
        "body": {"choices": [{"message": message, "finish_reason": finish}], "usage": usage},
    }


def refused(words: str) -> dict[str, Any]:
    return {"status": 400, "body": {"error": {"message": words}}}


async def ask(
    shapes: list[dict[str, Any]], calls: int, structured: Structured = "auto", request: ChatRequest = ASK
) -> tuple[list[ChatReply], list[str], list[str]]:
    """The replies, by which field each request was constrained, and what a person is told."""
    async with stand_in(*shapes) as server:
        endpoint = Endpoint(base_url=f"{server.url}/v1")
        dial = HttpDial(endpoint, OpenAIDialect(structured=structured), "m")
        desk = ClientContext()
        spec = ReplicatedClientSpec(
            model="m", replicas=(f"{server.url}/v1",), backend_factory=dial, retry=Retry(base=0.0)
        )
        client = spec.connect(desk)
        try:
            replies = [await client.chat(request) for _ in range(calls)]
        finally:
            await client.close()
        fields = ["response_format", "structured_outputs"]
        bodies = [asked.body for asked in server.asked if asked.body]  # without looks at its health
        ways = [next((name for name in fields if name in body), "none") for body in bodies]
        return replies, ways, desk.new_notices()


async def test_a_server_that_ignores_one_option_is_asked_by_the_other() -> None:
    replies, ways, told = await ask([said(PROSE), said(PROSE), said(PROSE), said("B")], calls=4)
    assert [reply.text for reply in replies] == [PROSE, PROSE, "B", "B"]
    assert ways == ["response_format"] * 3 + ["structured_outputs"] * 2
    assert replies[2].usage.calls == 2  # the ignored one was paid too
    (text,) = told
    assert "ignores the option that constrains replies (response_format)" in text
    assert "structured_outputs is used from now on" in text


async def test_vllms_own_option_falls_back_to_openais() -> None:
    _, ways, _ = await ask([said(PROSE)] * 3 + [said('{"answer": "A"}')], calls=4, structured="choice")
    assert ways == ["structured_outputs"] * 3 + ["response_format"] * 2


async def test_a_server_that_ignores_both_is_asked_as_at_first_and_only_checked() -> None:
    replies, ways, told = await ask([said(PROSE)], calls=6)
    assert [reply.text for reply in replies] == [PROSE] * 6
    assert ways == ["response_format"] * 3 + ["structured_outputs"] * 3 + ["response_format"] * 2
    assert len(told) == 2 and "replies are only checked" in told[1]


async def test_a_server_that_refuses_one_option_is_asked_by_the_other() -> None:
    words = "Unrecognized request argument supplied: response_format"
    replies, ways, told = await ask([refused(words), said("A")], calls=2)
    assert [reply.text for reply in replies] == ["A", "A"]
    assert ways == ["response_format", "structured_outputs", "structured_outputs"]
    assert "refuses the option that constrains replies (response_format)" in told[0]


@pytest.mark.parametrize(
    "words", ["temperature must be at most 2", "Invalid schema for response_format 'answer': no type"]
)
async def test_a_request_that_is_refused_for_itself_is_not_asked_again(words: str) -> None:
    with pytest.raises(LLMRejected, match=words):
        await ask([refused(words)], calls=1)


@pytest.mark.parametrize(
    ("shapes", "request_"),
    [
        ([said('{"answer": "A"}'), *[said(PROSE)] * 5], ASK),  # honored once: the model's fault since
        ([said("A"), *[said(PROSE)] * 5], ASK),
        ([said("I think", "length")] * 6, ASK),
        ([said("{}")] * 6, ChatRequest(messages=ASK.messages, schema={"type": "object"})),
        ([said("7")] * 6, ChatRequest(messages=ASK.messages, schema={"type": "integer"})),
        ([said(PROSE)] * 6, ChatRequest(messages=ASK.messages)),
    ],
    ids=["honored", "the bare choice", "cut", "object", "number", "free"],
)
async def test_a_server_that_honors_the_option_is_left_alone(
    shapes: list[dict[str, Any]], request_: ChatRequest
) -> None:
    _, ways, told = await ask(shapes, calls=6, request=request_)
    assert len(ways) == 6 and len(set(ways)) == 1 and not told


async def test_none_is_not_observed() -> None:
    _, ways, told = await ask([said(PROSE)], calls=5, structured="none")
    assert ways == ["none"] * 5 and not told
