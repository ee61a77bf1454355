"""What the simulated server does to a client on purpose: over the wire, to the real client, by command."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
import pytest

from peerloom.errors import LLMRejected
from peerloom.services.llm.base import ChatRequest
from peerloom.services.llm.hosted.backend import HttpBackend
from peerloom.services.llm.http.endpoint import Endpoint
from peerloom.services.llm.providers.openai import OpenAIDialect
from peerloom.services.llm.retry import Retryable
from peerloom.services.llm.simulated.behavior import SimulatedBehavior
from peerloom.services.llm.simulated.request import read
from peerloom.services.llm.simulated.responses import Response
from peerloom.services.llm.simulated.server.app import ServerConfig, SimulatedServer, serving

pytestmark = pytest.mark.usefixtures("either_http")
HELLO = ChatRequest(messages=[{"role": "user", "content": "hi"}])


class Client:
    """The real client's single attempts, and the server's other paths."""

    def __init__(self, root: str, backend: HttpBackend, session: aiohttp.ClientSession) -> None:
        self.root, self.backend, self.session = root, backend, session

    async def chat(self, text: str = "hi") -> str:
        request = ChatRequest(messages=[{"role": "user", "content": text}])
        return (await self.backend.chat(request, 0)).text

    async def post(self, path: str, body: Any = None) -> tuple[int, Any]:
        data = b"" if body is None else orjson.dumps(body)
        async with self.session.post(self.root + path, data=data) as answer:
            return answer.status, orjson.loads(await answer.read())

    async def stats(self) -> dict[str, Any]:
        async with self.session.get(f"{self.root}/stats") as answer:
            return orjson.loads(await answer.read())


@asynccontextmanager
async def hostile(*, Deadline: float = 5.0, admin: bool = False, **behavior) -> AsyncIterator[Client]:
    async with serving(ServerConfig(behavior=SimulatedBehavior(**behavior), port=0, admin=admin)) as port:
        root = f"http://127.0.0.1:{port}"
        backend = HttpBackend(Endpoint(base_url=f"{root}/v1", timeout=Deadline), OpenAIDialect(), "m")
        try:
            async with aiohttp.ClientSession() as session:
                yield Client(root, backend, session)
        finally:
            await backend.close()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("rate_429", "HTTP 429: simulated rate limit"),
        ("rate_5xx", "HTTP 500: simulated failure"),
        ("rate_hang", "timeout"),
        ("rate_garbage", r"HTTP 200 with an invalid body \(application/json"),
        ("rate_half_closed", "ServerDisconnectedError|disconnected before the answer"),
        ("rate_cut", "ClientPayloadError|disconnected within the answer"),
        ("rate_content_type", r"HTTP 200 with an invalid body \(text/html"),
    ],
)
async def test_each_fault_is_one_that_may_pass_and_is_counted(fault: str, words: str) -> None:
    async with hostile(Deadline=0.1 if fault == "rate_hang" else 5.0, **{fault: 1.0}) as client:
        for number in range(6):
            with pytest.raises(Retryable, match=words) as caught:
                await client.chat(f"question {number}")
            assert len(str(caught.value)) < 400
        await asyncio.sleep(0.01)
        counts = await client.stats()
    assert counts["faults"][fault.removeprefix("rate_")] == 6
    assert (counts["served"], counts["running"], counts["in_flight"]) == (0, 0, 0)
    assert counts["left"] == (6 if fault == "rate_hang" else 0)
    closes = fault in ("rate_half_closed", "rate_cut", "rate_hang")
    assert counts["open_connections"] == (0 if closes else 1)


async def test_a_slow_reply_is_a_reply_unless_the_client_is_faster() -> None:
    async with hostile(rate_slow=1.0, slow_seconds=0.1) as client:
        begin = time.perf_counter()
        assert await client.chat()
        assert time.perf_counter() - begin >= 0.09
        assert (await client.stats())["served"] == 1
    async with hostile(Deadline=0.1, rate_slow=1.0, slow_seconds=60) as client:
        with pytest.raises(Retryable, match="timeout"):
            await client.chat()
        await asyncio.sleep(0.01)
        counts = await client.stats()
    assert (counts["served"], counts["left"], counts["open_connections"]) == (0, 1, 0)


async def test_a_truncated_reply_is_served() -> None:
    async with hostile(rate_truncation=1.0) as client:
        assert (await client.backend.chat(HELLO, 0)).finish_reason == "length"
        counts = await client.stats()
    assert (counts["served"], counts["faults"]["truncation"]) == (1, 1)


async def test_a_limit_says_when_it_will_do() -> None:
    async with hostile(limit_rpm=2, limit_window=0.3, retry_after=99) as client:
        await client.chat("1")
        await client.chat("2")
        with pytest.raises(Retryable, match="limit_rpm is reached") as caught:
            await client.chat("3")
        assert caught.value.limit
        assert caught.value.retry_after is not None and 0 < caught.value.retry_after <= 0.3
        counts = await client.stats()
        assert (counts["refused"], counts["refused_for"]["requests"], counts["served"]) == (1, 1, 2)
        assert (counts["window"]["requests"], counts["window"]["most_requests"]) == (2, 2)
        await asyncio.sleep(caught.value.retry_after)
        await client.chat("3")


class Kept:
    """A connection that keeps what it is answered."""

    def __init__(self) -> None:
        self.statuses: list[int] = []

    def reply(self, response: Response, due: Any = None) -> None:
        self.statuses.append(response.status)
        if due is not None:
            due(lambda: None)


def test_a_storm_passes_in_virtual_time() -> None:
    now, kept = [1_000.0], Kept()
    behavior = SimulatedBehavior(storm_every=60.0, storm_seconds=10.0)
    server = SimulatedServer(ServerConfig(behavior=behavior), None, clock=lambda: now[0])
    body = orjson.dumps({"messages": HELLO.messages})
    request: Any = type("R", (), {"path": b"/v1/chat/completions", "method": b"POST", "body": body})
    for _ in range(130):
        server(request, kept)  # type: ignore[arg-type]  # all of a connection that it uses
        now[0] += 1.0
    stormy = [second for second, status in enumerate(kept.statuses) if status == 429]
    assert stormy == [*range(60, 70), *range(120, 130)]


async def test_there_are_no_commands_unless_it_was_started_so() -> None:
    async with hostile() as client:
        assert (await client.post("/admin/pause"))[0] == 404
        assert await client.chat()


async def test_a_paused_server_answers_503_until_it_is_revived() -> None:
    async with hostile(admin=True) as client:
        assert await client.post("/admin/pause") == (200, {"state": "paused"})
        with pytest.raises(Retryable, match="HTTP 503: the server is paused"):
            await client.chat()
        assert not await client.backend.healthy()
        assert await client.post("/admin/revive") == (200, {"state": "up"})
        assert await client.backend.healthy()
        assert await client.chat()


async def test_a_dead_server_cuts_everybody_off() -> None:
    async with hostile(admin=True, rate_hang=1.0) as client:
        waiting = asyncio.create_task(client.chat())
        await asyncio.sleep(0.02)
        await client.post("/admin/die")
        with pytest.raises(Retryable, match=r"(?i)disconnected"):
            await waiting
        with pytest.raises(Retryable, match=r"(?i)disconnected"):
            await client.chat()
        await client.post("/admin/behavior", {"rate_hang": 0.0})
        await client.post("/admin/revive")
        assert await client.chat()


async def test_a_server_may_be_gone_for_a_while() -> None:
    async with hostile(admin=True) as client:
        await client.post("/admin/die", {"seconds": 0.15})
        await asyncio.sleep(0.05)
        with pytest.raises(Retryable, match=r"(?i)cannot connect") as caught:
            await client.chat()
        assert not caught.value.taken
        await asyncio.sleep(0.25)
        assert await client.chat()


async def test_behavior_changes_at_run_time_but_not_what_is_said() -> None:
    async with hostile(admin=True, seed=5) as client:
        said = await client.chat()
        assert (await client.post("/admin/behavior", {"rate_5xx": 1.0}))[0] == 200
        with pytest.raises(Retryable, match="500"):
            await client.chat()
        assert (await client.post("/admin/behavior", {"rate_5xx": 0.0, "latency": 0.01}))[0] == 200
        assert await client.chat() == said
        for wrong in ({"seed": 1}, {"rate_5xx": 2.0}, {"rate_5xx": "x"}, [1]):
            assert (await client.post("/admin/behavior", wrong))[0] == 400
        assert (await client.post("/admin/die", {"seconds": -1}))[0] == 400


async def test_log_probabilities_spell_the_reply() -> None:
    async with hostile() as client:
        body = {"messages": HELLO.messages, "logprobs": True, "top_logprobs": 3}
        choice = (await client.post("/v1/chat/completions", body))[1]["choices"][0]
        assert (await client.post("/v1/chat/completions", {**body, "top_logprobs": 21}))[0] == 400
    records = choice["logprobs"]["content"]
    assert "".join(record["token"] for record in records) == choice["message"]["content"]
    for record in records:
        first, *others = record["top_logprobs"]
        assert first["token"] == record["token"]
        assert len(others) == 2 and all(other["logprob"] < first["logprob"] < 0 for other in others)


async def test_vectors_may_be_asked_for_as_bytes() -> None:
    async with hostile() as client:
        body = {"input": "one", "dimensions": 4, "encoding_format": "base64"}
        answer = (await client.post("/v1/embeddings", body))[1]
        assert len(answer["data"][0]["embedding"]) == 24
        for wrong in ({"input": []}, {"input": [1.5]}, {"input": [[]]}, {"input": "x", "dimensions": 0}, []):
            assert (await client.post("/v1/embeddings", wrong))[0] == 400


async def test_what_is_no_tool_is_refused() -> None:
    async with hostile() as client:
        for tools in ([{}], ["x"], [{"function": {"name": "f", "parameters": {"type": "no"}}}]):
            request = ChatRequest(messages=HELLO.messages, tools=tuple(tools), tool_choice="required")
            with pytest.raises(LLMRejected, match="tool"):
                await client.backend.chat(request, 0)


def test_tools_and_what_is_shown_do_not_change_other_dice() -> None:
    body = {"messages": HELLO.messages}
    plain = read(body, 0)
    assert read({**body, "logprobs": True, "max_tokens": 5}, 0).draws == plain.draws
    tool = {"type": "function", "function": {"name": "f"}}
    assert read({**body, "tools": [tool]}, 0).draws != plain.draws
