import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peerloom.errors import LLMRejected
from peerloom.services.llm.base import LLM, ChatReply, ChatRequest, EmbedReply, EmbedRequest
from peerloom.services.llm.cache import thread as clerk
from peerloom.services.llm.cache.client import CachedSpec, CacheSettings, CachingLLM
from peerloom.services.llm.client.client import ReplicatedClientSpec
from peerloom.services.llm.simulated.service import SimulatedService
from peerloom.services.llm.usage.prices import Price, Prices
from peerloom.task import Usage

FLEET = SimulatedService().spec().with_prices(Prices({"simulated": Price(prompt=1.0, completion=2.0)}))


class Model:
    """Counts what it is asked; `gate` holds its answers back."""

    def __init__(self, **reply: Any) -> None:
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.reply = {
            "finish_reason": "stop",
            "model": "m",
            "seconds": 0.5,
            "usage": Usage(10, 5, 2, 1, 0.01),
        } | reply

    async def chat(self, request: ChatRequest) -> ChatReply:
        self.asked += 1
        number = self.asked
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        words = f"reply {number}"
        return ChatReply(text=words, message={"role": "assistant", "content": words}, **self.reply)

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        self.asked += 1
        return EmbedReply(vectors=[[0.5, float(self.asked)]], usage=Usage(3, 0, 0, 1), model="e")

    async def close(self) -> None: ...


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.db"


@asynccontextmanager
async def caching(
    model: LLM, path: Path, fleet: ReplicatedClientSpec = FLEET, **settings: Any
) -> AsyncIterator[CachingLLM]:
    client = CachingLLM(model, CacheSettings(path=str(path), **{"size_gb": 0.01, **settings}), [fleet])
    try:
        yield client
    finally:
        await client.close()


def request(seed: int | None = 1, text: str = "hi", max_tokens: int | None = None) -> ChatRequest:
    said = {"role": "user", "content": text}
    return ChatRequest(messages=[said], seed=seed, temperature=1.0, max_tokens=max_tokens)


async def test_the_same_request_again_is_not_asked_and_costs_nothing(path: Path) -> None:
    model = Model()
    async with caching(model, path) as client:
        first = await client.chat(request())
        again = await client.chat(request())
        assert (first.text, again.text, model.asked) == ("reply 1", "reply 1", 1)
        assert (first.usage.calls, again.usage, again.seconds) == (1, Usage(), 0.0)
        assert (again.model, again.message, again.finish_reason) == (first.model, first.message, "stop")
        tally = client.tally
        assert (tally.hits, tally.misses, tally.tokens) == (1, 1, 15)
        assert tally.usd == pytest.approx(20e-6)  # at the price of today
        assert client.notices == []


async def test_a_later_run_finds_it(path: Path) -> None:
    async with caching(Model(), path) as client:
        await client.chat(request())
    model = Model()
    async with caching(model, path) as client:
        assert (await client.chat(request())).text == "reply 1"
        assert (await client.chat(request(seed=2))).text == "reply 1"  # another one
        assert (model.asked, client.tally.hits, client.tally.misses) == (1, 1, 1)


async def test_without_a_price_it_is_worth_what_was_paid(path: Path) -> None:
    async with caching(Model(), path, replace(FLEET, price=None)) as client:
        await client.chat(request())
        await client.chat(request())
        assert client.tally.usd == 0.01


async def test_samples_without_a_seed_stay_samples(path: Path) -> None:
    model = Model()
    async with caching(model, path) as client:
        replies = [await client.chat(request(seed=None)) for _ in range(3)]
        assert len({reply.text for reply in replies}) == model.asked == 3
        assert (client.tally.hits, client.tally.misses) == (0, 0)


@pytest.mark.parametrize(
    ("finish", "limit", "asked"),
    [
        ("stop", None, 1),
        ("tool_calls", None, 1),
        ("length", None, 2),
        ("length", 9, 1),
        ("content_filter", None, 2),
    ],
)
async def test_only_replies_as_they_were_asked_for_are_kept(
    path: Path, finish: str, limit: int | None, asked: int
) -> None:
    model = Model(finish_reason=finish)
    async with caching(model, path) as client:
        await client.chat(request(max_tokens=limit))
        await client.chat(request(max_tokens=limit))
        assert model.asked == asked


async def test_vectors_are_kept(path: Path) -> None:
    model = Model()
    async with caching(model, path) as client:
        first = await client.embed(EmbedRequest(texts=("a",)))
        again = await client.embed(EmbedRequest(texts=("a",)))
        assert first.vectors == again.vectors == [[0.5, 1.0]]
        assert (again.usage, client.tally.tokens) == (Usage(), 3)


async def test_equal_requests_at_the_same_time_are_asked_once(path: Path) -> None:
    model = Model()
    model.gate.clear()
    async with caching(model, path) as client:
        asking = [asyncio.create_task(client.chat(request())) for _ in range(20)]
        await until(lambda: model.asked == 1)
        model.gate.set()
        replies = await asyncio.gather(*asking)
        assert (model.asked, client.tally.hits) == (1, 19)
        assert sum(reply.usage.calls for reply in replies) == 1
        replies[3].message["content"] = "changed by an agent"
        assert replies[4].message["content"] == "reply 1"


async def test_when_the_one_who_asks_is_cancelled_another_asks(path: Path) -> None:
    model = Model()
    model.gate.clear()
    async with caching(model, path) as client:
        asking = [asyncio.create_task(client.chat(request())) for _ in range(3)]
        await until(lambda: model.asked == 1)
        asking[0].cancel()
        await until(lambda: model.asked == 2)
        model.gate.set()
        replies = await asyncio.gather(*asking[1:])
        assert [reply.text for reply in replies] == ["reply 2", "reply 2"]
        assert asking[0].cancelled()


async def test_an_error_is_everybodys_and_is_not_kept(path: Path) -> None:
    model = Model()
    model.error = LLMRejected("no")
    model.gate.clear()
    async with caching(model, path) as client:
        asking = [asyncio.create_task(client.chat(request())) for _ in range(3)]
        await until(lambda: model.asked == 1)
        model.gate.set()
        assert [type(each) for each in await asyncio.gather(*asking, return_exceptions=True)] == [
            LLMRejected
        ] * 3
        model.error = None
        assert (await client.chat(request())).text == "reply 2"


async def test_a_pilot_keeps_replies_and_takes_none(path: Path) -> None:
    model = Model()
    async with caching(model, path, lookup=False) as client:
        await client.chat(request())
        await client.chat(request())
    assert model.asked == 2
    async with caching(model, path) as client:
        assert (await client.chat(request())).text == "reply 2"


def garbage(path: Path) -> None:
    path.write_bytes(b"this is no database " * 1000)


def a_directory(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("spoil", [garbage, a_directory])
async def test_a_file_that_cannot_be_used_fails_no_call_and_is_told_of_once(
    path: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(path)
    model = Model()
    async with caching(model, path) as client:
        for seed in (1, 1, 2, 3):
            await client.chat(request(seed))
        await until(lambda: bool(client.notices))
        assert model.asked == 4
    assert len(client.notices) == 1
    assert f"the cache {path} cannot be used" in client.notices[0]


def damage(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))


async def test_a_file_damaged_while_it_is_used(path: Path) -> None:
    async with caching(Model(), path) as client:
        for seed in range(50):
            await client.chat(request(seed, "x" * 500))
    damage(path)
    model = Model()
    async with caching(model, path) as client:
        await client.chat(request(3, "x" * 500))
        assert model.asked == 1
        await until(lambda: bool(client.notices))


async def test_a_damaged_value_is_asked_for_again_and_replaced(path: Path) -> None:
    async with caching(Model(), path) as client:
        await client.chat(request())
    with sqlite3.connect(path) as database:
        database.execute("UPDATE replies SET value = ?", (b"(\xb5/\xfdnonsense",))
    database.close()
    model = Model()
    async with caching(model, path) as client:
        await client.chat(request())
    async with caching(model, path) as client:
        await client.chat(request())
    assert (model.asked, client.tally.hits) == (1, 1)


async def test_a_full_disk_is_told_of_once_and_reading_goes_on_later(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with caching(Model(), path) as client:
        await client.chat(request())
    full = sqlite3.OperationalError("database or disk is full")

    def refuse(*_: Any) -> None:
        raise full

    monkeypatch.setattr(clerk, "AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(clerk.Store, "write", refuse)
    model = Model()
    async with caching(model, path) as client:
        for seed in range(1, 6):
            await client.chat(request(seed))
        assert (model.asked, client.tally.hits) == (4, 1)
        await client.chat(request())
        assert client.tally.hits == 2
    assert len(client.notices) == 1
    assert "disk is full" in client.notices[0]


async def test_what_could_not_be_written_for_a_lock_is_written_later(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peerloom.services.llm.cache.store.BUSY_SECONDS", 0.0)
    model = Model()
    async with caching(model, path) as client:
        await client.chat(request(1))
        await client.chat(request(2))  # by now the file is there
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        await client.chat(request(3))
        await client.chat(request(4))
        other.execute("ROLLBACK")
        other.close()
    assert client.notices == []
    async with caching(model, path) as client:
        for seed in (1, 2, 3, 4):
            await client.chat(request(seed))
    assert (model.asked, client.tally.hits) == (4, 4)


async def test_a_model_that_does_not_say_what_it_is_goes_uncached(path: Path) -> None:
    model = Model()
    fleet = ReplicatedClientSpec(model="m", replicas=("x",), backend_factory=Model().chat)  # type: ignore[arg-type]
    async with caching(model, path, fleet) as client:
        await client.chat(request())
        await client.chat(request())
        assert client.notices == ["the cache is not used: method does not say what decides its replies"]
    assert model.asked == 2


async def test_the_spec_passes_on_what_is_behind_it(path: Path) -> None:
    prices = Prices({"simulated": Price(prompt=1.0, completion=1.0)})
    spec = CachedSpec(SimulatedService().spec(), CacheSettings(path=str(path), size_gb=0.01))
    spec = spec.map_services(lambda each: each.with_limits(True).with_prices(prices))
    (fleet,) = spec.fleets
    assert (fleet.limited, fleet.price) == (True, Price(prompt=1.0, completion=1.0))


async def test_closing_twice_and_unused(path: Path) -> None:
    client = CachingLLM(Model(), CacheSettings(path=str(path), size_gb=0.01), [FLEET])
    await client.close()
    assert not path.exists()  # noqa: ASYNC240 - of a temporary directory
    assert (await client.chat(request())).text == "reply 1"  # late, but answered
    await client.close()
    await client.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)
