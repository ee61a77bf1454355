"""The simulated model, in process and behind HTTP: the same cases, and the same replies."""

import asyncio
import json
import pickle
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from peerloom.errors import ContextExceeded, LLMRejected, LLMUnavailable
from peerloom.services.llm.base import LLM, ChatReply, ChatRequest, EmbedRequest
from peerloom.services.llm.client.client import ReplicatedClient, ReplicatedClientSpec
from peerloom.services.llm.client.context import ClientContext
from peerloom.services.llm.client.routing import Routing
from peerloom.services.llm.hosted.backend import HttpDial
from peerloom.services.llm.hosted.providers import OpenAIService
from peerloom.services.llm.http.endpoint import Endpoint
from peerloom.services.llm.providers.openai import OpenAIDialect
from peerloom.services.llm.retry import Retry
from peerloom.services.llm.simulated.behavior import SimulatedBehavior
from peerloom.services.llm.simulated.server.app import ServerConfig, serving
from peerloom.services.llm.simulated.service import SimulatedService

SCHEMA = {
    "type": "object",
    "properties": {
        "score": {"type": "integer"},
        "why": {"type": "string"},
        "verdict": {"enum": ["yes", "no"]},
    },
    "required": ["score", "why", "verdict"],
    "additionalProperties": False,
}
QUESTION = "Which?\nA) one\nB) two\nC) three"


def ask(text: str, **fields) -> ChatRequest:
    return ChatRequest(messages=[{"role": "user", "content": text}], **fields)


class Waits(list[float]):
    """Notes waits, and takes no time for them."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)
        await asyncio.sleep(0)


STAYS = Routing(eject_after=1_000)  # however often it fails


def in_process(waits: Waits, retry: Retry, timeout: float, **behavior) -> ReplicatedClient:
    service = SimulatedService(retry=retry, timeout=timeout, **behavior)
    spec = replace(
        service.spec(),
        backend_factory=lambda name: service(name, sleep=waits),
        routing=STAYS,
        retry=retry,
    )
    return ReplicatedClient(spec, ClientContext(), sleep=waits)


def over_http(port: int, retry: Retry, timeout: float, structured="auto") -> ReplicatedClientSpec:
    url = f"http://127.0.0.1:{port}/v1"
    dial = HttpDial(
        Endpoint(base_url=url, timeout=timeout), OpenAIDialect(structured=structured), "simulated"
    )
    return ReplicatedClientSpec(
        model="simulated", replicas=(url,), backend_factory=dial, retry=retry, routing=STAYS
    )


@pytest.fixture(params=["in process", "over HTTP"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Callable]:
    """Makes a client of a simulated model with the behavior given."""
    async with AsyncExitStack() as stack:

        async def made(waits=None, retry=None, seconds: float = 5.0, **behavior) -> LLM:
            waits = Waits() if waits is None else waits
            retry = retry or Retry(attempts=20, base=0)
            if request.param == "in process":
                return in_process(waits, retry, seconds, **behavior)
            port = await stack.enter_async_context(
                serving(ServerConfig(behavior=SimulatedBehavior(**behavior), port=0))
            )
            client = ReplicatedClient(over_http(port, retry, seconds), ClientContext(), sleep=waits)
            stack.push_async_callback(client.close)
            return client

        yield made


async def test_a_reply_is_whole(make) -> None:
    llm = await make(seed=3)
    reply = await llm.chat(ask("hello " * 40, session="0-1-2/teacher"))
    assert reply.message == {"role": "assistant", "content": reply.text}
    assert (reply.model, reply.finish_reason, reply.usage.calls) == ("simulated", "stop", 1)
    assert reply.usage.prompt == 64
    assert reply.usage.completion == pytest.approx(len(reply.text) / 4, abs=1)


async def test_choices_schemas_and_limits_are_kept_to(make) -> None:
    llm = await make()
    assert (await llm.chat(ask("?", choices=("red", "blue"), max_tokens=2))).text in ("red", "blue")
    assert '"verdict":' in (await llm.chat(ask("?", schema=SCHEMA))).text
    cut = await llm.chat(ask("?", max_tokens=3))
    assert (cut.finish_reason, cut.usage.completion, len(cut.text)) == ("length", 3, 12)


@pytest.mark.parametrize(
    "rates",
    [
        {"rate_429": 0.5},
        {"rate_5xx": 0.5},
        {"rate_garbage": 0.5},
        {"rate_hang": 0.3},
        {"rate_half_closed": 0.5},
        {"rate_cut": 0.5},
        {"rate_content_type": 0.5},
        {"rate_slow": 0.5, "slow_seconds": 0.01},
        {"rate_slow": 0.3, "slow_seconds": 60},
    ],
)
async def test_faults_that_pass_are_retried_to_the_same_reply(make, rates) -> None:
    faultless = in_process(Waits(), Retry(), 1)
    llm = await make(seconds=0.1, **rates)
    requests = [ask(f"question {n}") for n in range(12)]
    replies = await asyncio.gather(*(llm.chat(request) for request in requests))
    assert [reply.text for reply in replies] == [(await faultless.chat(r)).text for r in requests]


@pytest.mark.parametrize(
    ("rate", "last"),
    [
        ("rate_5xx", "HTTP 500"),
        ("rate_hang", "timeout"),
        ("rate_garbage", "HTTP 200"),
        ("rate_half_closed", ".*[Dd]isconnect"),
        ("rate_cut", "disconnected within"),
        ("rate_content_type", "HTTP 200 with an invalid body .*(html|HTML)"),
    ],
)
async def test_faults_that_do_not_pass_end_the_task(make, rate, last) -> None:
    llm = await make(retry=Retry(attempts=3, base=0), seconds=0.1, **{rate: 1.0})
    with pytest.raises(LLMUnavailable, match=f"did not answer in 3 attempts.*last: {last}"):
        await llm.chat(ask("?"))


async def test_a_rate_limit_says_how_long_to_wait(make) -> None:
    waits = Waits()
    llm = await make(waits, rate_429=0.5, retry_after=2.5, retry=Retry(attempts=2, base=0))
    for number in range(12):
        await llm.chat(ask(f"question {number}"))
    assert set(waits) - {0.0} == {2.5}


@pytest.mark.parametrize("limits", [{"limit_rpm": 3}, {"limit_tpm": 100, "tokens": 20, "tokens_sigma": 0.0}])
async def test_a_limit_refuses_what_is_beyond_it(make, limits) -> None:
    llm = await make(retry=Retry(attempts=1), limit_window=60.0, **limits)
    for number in range(3):
        await llm.chat(ask(f"question {number}"))
    with pytest.raises(LLMUnavailable, match=f"HTTP 429: simulated rate limit: {next(iter(limits))}"):
        await llm.chat(ask("one more"))


async def test_a_request_above_the_limit_of_tokens_is_refused_for_good(make) -> None:
    llm = await make(limit_tpm=100)
    with pytest.raises(LLMRejected, match="it can never be served"):
        await llm.chat(ask("word " * 200))


async def test_calls_at_once_are_limited(make) -> None:
    llm = await make(asyncio.sleep, retry=Retry(attempts=1), limit_concurrency=1, latency=0.05)
    outcomes = await asyncio.gather(*(llm.chat(ask(f"{n}")) for n in range(3)), return_exceptions=True)
    assert sorted(type(each).__name__ for each in outcomes) == [
        "ChatReply",
        "LLMUnavailable",
        "LLMUnavailable",
    ]
    assert (await llm.chat(ask("later"))).text


async def test_a_prefix_met_before_is_cached_and_read_sooner(make) -> None:
    llm = await make(prefix_cache=10_000, prefill_tokens_per_second=100_000.0)
    first = await llm.chat(ask("word " * 400))
    again = await llm.chat(ask("word " * 400, seed=1))
    assert first.usage.cached == 0
    assert again.usage.cached == again.usage.prompt // 16 * 16


async def test_vectors_have_length_one_and_are_the_texts_own(make) -> None:
    llm = await make(seed=3)
    reply = await llm.embed(EmbedRequest(texts=("one", "two", "one"), dimensions=8))
    one, two, same = reply.vectors
    assert one == same != two
    assert all(len(each) == 8 and sum(x * x for x in each) == pytest.approx(1) for each in reply.vectors)
    assert reply.usage.prompt == 3
    assert len((await llm.embed(EmbedRequest(texts=("one",)))).vectors[0]) == 256


TOOLS = tuple(
    {"type": "function", "function": {"name": name, "parameters": {**SCHEMA, "title": name}}}
    for name in ("judge", "score")
)


@pytest.mark.parametrize(
    ("choice", "names", "finish"),
    [
        ("required", {"judge", "score"}, "tool_calls"),
        ("score", {"score"}, "stop"),
    ],
)
async def test_a_tool_that_must_be_called_is_called_as_it_wants(make, choice, names, finish) -> None:
    llm = await make()
    for number in range(8):
        reply = await llm.chat(ask(f"{number}?", tools=TOOLS, tool_choice=choice))
        (call,) = reply.message["tool_calls"]
        assert reply.finish_reason == finish and reply.text == ""
        assert call["function"]["name"] in names
        assert set(json.loads(call["function"]["arguments"])) == {"score", "why", "verdict"}


async def test_tools_that_may_be_called_are_not(make) -> None:
    llm = await make()
    reply = await llm.chat(ask("?", tools=TOOLS))
    assert reply.text and "tool_calls" not in reply.message
    assert reply.usage.prompt > (await llm.chat(ask("?"))).usage.prompt, "their descriptions are read too"
    with pytest.raises(LLMRejected, match="no tool has the name"):
        await llm.chat(ask("?", tools=TOOLS, tool_choice="missing"))


async def test_thoughts_come_before_a_share_of_replies(make) -> None:
    llm = await make(rate_reasoning=0.5)
    replies = [await llm.chat(ask(f"question {n}")) for n in range(20)]
    thoughts = [reply.reasoning for reply in replies]
    assert 4 < sum(map(bool, thoughts)) < 16
    for reply, thought in zip(replies, thoughts, strict=True):
        assert reply.usage.completion == pytest.approx((len(reply.text) + len(thought)) / 4, abs=1)
    cut = [await llm.chat(ask(f"question {n}", max_tokens=3)) for n in range(20)]
    assert {bool(reply.text) for reply in cut} == {True, False}, "thoughts may leave no room"
    assert {reply.finish_reason for reply in cut} == {"length"}


async def test_truncation_is_a_reply(make) -> None:
    llm = await make(rate_truncation=1.0)
    assert (await llm.chat(ask("?"))).finish_reason == "length"


async def test_what_cannot_be_answered_is_refused(make) -> None:
    llm = await make(context=50)
    with pytest.raises(ContextExceeded, match="maximum context length is 50"):
        await llm.chat(ask("word " * 100))
    with pytest.raises(LLMRejected, match="pattern"):
        await llm.chat(ask("?", schema={"type": "string", "pattern": "a+"}))


def bare(reply: ChatReply) -> tuple[object, ...]:
    return reply.text, reply.finish_reason, reply.usage, reply.model, reply.message


@pytest.mark.parametrize("structured", ["auto", "choice"])
async def test_in_process_and_over_http_are_the_same(structured) -> None:
    behavior = {"seed": 11, "rate_5xx": 0.2, "tokens_sigma": 1.0}
    if structured == "auto":  # a bare choice is shorter than a wrapped one, and cut elsewhere
        behavior["rate_truncation"] = 0.2
    requests = [
        ask(f"{n} {QUESTION} é {chr(0x1F600)}", **fields)
        for n in range(20)
        for fields in (
            {"seed": n, "temperature": 0.7, "session": f"0-{n}-0/teacher"},
            {"max_tokens": 20, "stop": (".",), "top_p": 1},
            {"choices": ("A", "B", "C"), "max_tokens": 1},
            {"schema": {"type": "array", "items": SCHEMA}, "max_tokens": 400},
        )
    ]
    here = in_process(Waits(), Retry(base=0), 1, **behavior)
    async with serving(ServerConfig(behavior=SimulatedBehavior(**behavior), port=0)) as port:
        there = over_http(port, Retry(base=0), 5.0, structured).connect()
        try:
            replies = await asyncio.gather(*(there.chat(request) for request in requests))
        finally:
            await there.close()
    for request, reply in zip(requests, replies, strict=True):
        if structured == "choice" and request.choices:
            assert reply.text == (await here.chat(request)).text
        else:
            assert bare(reply) == bare(await here.chat(request))


async def test_latency_is_waited_for() -> None:
    waits = Waits()
    await in_process(waits, Retry(), 1, latency=0.5).chat(ask("?"))
    assert waits == [0.5]


async def test_the_service_is_its_own_spec_and_travels(tmp_path) -> None:
    said: list[str] = []
    service = SimulatedService(latency=0.001, seed=7)
    spec = await service.start("llm", None, said.append, tmp_path)  # type: ignore[arg-type]  # starts nothing
    assert said == ["simulated model, latency 0.001 s, seed 7"]
    first, second = (each.connect() for each in (spec, pickle.loads(pickle.dumps(spec))))
    assert bare(await first.chat(ask("?"))) == bare(await second.chat(ask("?")))
    assert await service("this process").healthy()
    await service.stop()


async def test_the_server_passes_the_preflight_of_the_real_service(tmp_path) -> None:
    async with serving(ServerConfig(port=0, model="my-model")) as port:
        service = OpenAIService(base_url=f"http://127.0.0.1:{port}/v1")
        spec = await service.start("llm", None, print, tmp_path)  # type: ignore[arg-type]  # starts nothing
    assert spec.model == "my-model"
