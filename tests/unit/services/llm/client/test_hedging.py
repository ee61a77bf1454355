"""A second request beside a slow one: when it is sent, how many there are, and what becomes of the loser."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fleets import fleet, question, reading, replicas, until

from peerloom.errors import ConfigError, LLMRejected, LLMUnavailable
from peerloom.services.llm.base import ChatReply, ChatRequest
from peerloom.services.llm.client.client import ReplicatedClient, ReplicatedClientSpec
from peerloom.services.llm.client.hedge import Hedge, Hedging
from peerloom.services.llm.client.routing import ReplicaRouter, Routing
from peerloom.services.llm.limits.quota_client import QuotaClient
from peerloom.services.llm.retry import Retry, Retryable
from peerloom.services.llm.usage.amounts import ANYTHING, NOTHING, QuotaGrant, encode
from peerloom.services.llm.usage.prices import Price
from peerloom.task import Usage

EAGER = Hedge(percentile=0.9, share=0.5, after=32)
USAGE = Usage(prompt=60, completion=40, calls=1)
PRICE = Price(prompt=1e4, completion=1e4)  # a dollar a call
Act = Callable[[], Coroutine[Any, Any, None]]


class Fake:
    """Two replicas, `home` first: each call of theirs does what is said next, then what was said last."""

    def __init__(self) -> None:
        self.acts: dict[str, list[Act]] = {"home": [], "other": []}
        self.calls: list[str] = []
        self.cancelled = 0
        self.both = asyncio.Event()

    async def fail(self) -> None:
        """Fail in a way that may pass, once there is a second request."""
        await self.both.wait()
        raise Retryable("HTTP 500: oops")

    async def refuse(self) -> None:
        """Fail for good, once there is a second request."""
        await self.both.wait()
        raise LLMRejected("HTTP 400: too odd")

    async def late(self) -> None:
        """Answer a little later than the other one."""
        await self.both.wait()
        await asyncio.sleep(0.02)

    def spec(self, *names: str, **fields: Any) -> ReplicatedClientSpec:
        dial: Any = lambda name: FakeBackend(self, name)  # noqa: E731
        names = names or ("home", "other")
        routing = Routing(affinity="conversation", imbalance=100.0)
        kept = {"hedge": EAGER, "routing": routing, "price": PRICE, "limited": True, **fields}
        return ReplicatedClientSpec(model="m", replicas=names, backend_factory=dial, **kept)


class FakeBackend:
    def __init__(self, fake: Fake, name: str) -> None:
        self.fake, self.name = fake, name

    async def chat(self, request: ChatRequest, attempt: int) -> ChatReply:
        self.fake.calls.append(self.name)
        if self.name == "other":
            self.fake.both.set()
        acts = self.fake.acts[self.name]
        try:
            if acts:
                await (acts.pop(0) if len(acts) > 1 else acts[0])()
        except asyncio.CancelledError:
            self.fake.cancelled += 1
            raise
        return ChatReply(text=self.name, usage=USAGE, seconds=0.001)

    async def healthy(self) -> bool:
        return True

    async def close(self) -> None:
        """Nothing to close."""


async def hang() -> None:
    await asyncio.Event().wait()


@asynccontextmanager
async def warm(
    spec: ReplicatedClientSpec, *, calls: int = 64
) -> AsyncIterator[tuple[ReplicatedClient, QuotaClient]]:
    """A client that has made so many quick calls, and may make any number more."""
    desk = QuotaClient()
    client = spec.connect(desk)
    grant = QuotaGrant(service="llm", number=1, limited=True, granted=ANYTHING, slots=1e9, moved=None)
    desk.apply_grants(encode([grant]))
    try:
        async with asyncio.timeout(20):
            for _ in range(calls):
                await client.chat(HOME)
            yield client, desk
    finally:
        await client.close()


def homely() -> ChatRequest:
    """A call whose home is the replica of that name."""
    router = ReplicaRouter(Routing(), ["home", "other"])
    return next(question(n) for n in range(99) if router.pick(f"{n}-0") == "home")


HOME = homely()


def test_the_delay_is_the_percentile_of_what_calls_took_once_enough_are_known() -> None:
    hedging = Hedging(Hedge(percentile=0.9, share=0.1, after=100))
    for number in range(127):
        hedging.took(float(number))
        assert hedging.delay is None
    hedging.took(127.0)
    assert hedging.delay == 114.0


def test_second_requests_are_a_share_of_all_calls() -> None:
    hedging = Hedging(Hedge(percentile=0.9, share=0.05, after=32))
    sent = 0
    for call in range(2_000):
        if hedging.delay is not None:
            hedging.sent()
            sent += 1
        hedging.took(1.0)
        assert sent <= 0.05 * (call + 1) + 1
    assert sent == 100


@pytest.mark.parametrize("fields", [{"percentile": 1.0}, {"share": 0.0}, {"share": 1.5}])
def test_impossible_hedges_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=rf"llm\.hedge\.{next(iter(fields))} is"):
        Hedge(**fields)


async def test_the_second_request_goes_elsewhere_and_its_reply_counts() -> None:
    fake = Fake()
    async with warm(fake.spec()) as (client, desk):
        before = reading(desk)
        assert set(fake.calls) == {"home"}
        fake.acts["home"] = [hang]
        assert (await client.chat(HOME)).text == "other"
        after = reading(desk)
    assert fake.calls[64:] == ["home", "other"]
    assert fake.cancelled == 1
    assert (after.outstanding, after.reserved) == (0, NOTHING)
    assert after.spent.plus(before.spent, -1.0) == (2.0, 2.0, 200.0, 2.0), "both are paid"


async def test_the_first_request_may_still_win_and_the_second_is_settled() -> None:
    fake = Fake()
    async with warm(fake.spec()) as (client, desk):
        before = reading(desk)
        fake.acts = {"home": [fake.late], "other": [hang]}
        reply = await client.chat(HOME)
        after = reading(desk)
    assert (reply.text, reply.usage.usd) == ("home", 1.0)
    assert fake.calls[64:] == ["home", "other"] and fake.cancelled == 1
    assert (after.outstanding, after.reserved) == (0, NOTHING)
    assert after.spent.plus(before.spent, -1.0).requests == 2.0


@pytest.mark.parametrize("failing", ["home", "other"])
async def test_a_failure_of_one_leaves_it_to_the_other(failing: str) -> None:
    fake = Fake()
    async with warm(fake.spec(retry=Retry(attempts=1))) as (client, desk):
        fake.acts = {"home": [fake.late], "other": [fake.late], failing: [fake.fail]}
        assert (await client.chat(HOME)).text != failing
        assert reading(desk).outstanding == 0


async def test_two_failures_are_one_try() -> None:
    fake = Fake()
    async with warm(fake.spec(retry=Retry(attempts=2, base=0.0))) as (client, desk):
        fake.acts = {"home": [fake.fail], "other": [fake.fail]}
        with pytest.raises(LLMUnavailable, match=r"did not answer in 2 attempts .* HTTP 500: oops"):
            await client.chat(HOME)
        assert reading(desk).outstanding == 0


async def test_a_request_that_will_never_do_does_not_wait_for_the_other() -> None:
    fake = Fake()
    async with warm(fake.spec()) as (client, desk):
        fake.acts = {"home": [fake.refuse], "other": [hang]}
        with pytest.raises(LLMRejected, match="too odd"):
            await client.chat(HOME)
        assert fake.cancelled == 1
        assert reading(desk).outstanding == 0


async def test_a_second_request_that_finds_no_replica_changes_nothing() -> None:
    fake = Fake()
    async with warm(fake.spec("home")) as (client, _):

        async def answer_last() -> None:
            client._replicas.move([])  # whoever is sent anywhere from now on finds nobody
            await asyncio.sleep(0.1)

        fake.acts["home"] = [answer_last]
        assert (await client.chat(HOME)).text == "home"
    assert fake.calls[64:] == ["home"]


async def test_a_cancelled_call_takes_both_with_it() -> None:
    fake = Fake()
    async with warm(fake.spec()) as (client, desk):
        fake.acts = {"home": [hang], "other": [hang]}
        call = asyncio.create_task(client.chat(HOME))
        await until(lambda: len(fake.calls) == 66)
        assert reading(desk).outstanding == 2
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert fake.cancelled == 2
        assert (reading(desk).outstanding, reading(desk).reserved) == (0, NOTHING)


async def test_no_second_request_without_a_grant_for_it() -> None:
    fake = Fake()
    async with warm(fake.spec()) as (client, desk):
        one = QuotaGrant(service="llm", number=2, limited=True, granted=ANYTHING, slots=1.0, moved=None)
        desk.apply_grants(encode([one]))
        fake.acts["home"] = [hang]
        call = asyncio.create_task(client.chat(HOME))
        await asyncio.sleep(0.05)
        assert fake.calls[64:] == ["home"]
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)


async def test_what_a_hedged_call_took_is_counted_from_its_begin() -> None:
    """Else the percentile would sink with every call that was saved, and ever more would look slow."""
    fake = Fake()

    async def slow() -> None:
        await asyncio.sleep(0.01)

    fake.acts["home"] = [slow]
    async with warm(fake.spec(hedge=Hedge(percentile=0.1, share=0.9, after=32)), calls=32) as (client, _):
        fake.acts["home"] = [hang]
        for _ in range(20):
            await client.chat(HOME)
        fake.acts["home"] = [slow]
        for _ in range(12):
            await client.chat(HOME)
        assert client._hedging is not None
        assert (client._hedging.delay or 1.0) >= 0.009


async def test_over_http_the_loser_lets_go_of_its_connection() -> None:
    async with replicas(2) as both:
        spec = fleet(*(each.url for each in both), hedge=EAGER)
        async with warm(spec, calls=0) as (client, desk):
            for number in range(64):
                await client.chat(question(number))
            served = [(await each.stats())["served"] for each in both]
            await both[0].admin("laws", {"latency": 30.0})
            async with asyncio.timeout(10):
                for number in range(24):
                    await client.chat(question(number))
            await asyncio.sleep(0.02)
            slow, quick = [await each.stats() for each in both]
            assert (slow["in_flight"], slow["served"]) == (0, served[0])
            assert quick["served"] == served[1] + 24
            assert 4 <= slow["left"] <= 20
            assert reading(desk).outstanding == 0
