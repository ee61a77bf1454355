"""A client of real HTTP servers that fail: whose calls go where, who waits, and what the driver is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fleets import Context, fleet, metered, question, reading, replicas, until
from raw_server import RawServer, completion, error, http, raw_server

from peerloom.errors import LLMDenied, LLMRejected, LLMUnavailable
from peerloom.services.llm.client.client import ReplicatedClient, ReplicatedClientSpec
from peerloom.services.llm.client.context import ClientContext, Health
from peerloom.services.llm.client.routing import Routing
from peerloom.services.llm.retry import Retry

TWICE = Retry(attempts=2, base=0.01, cap=0.01, retry_after_cap=0.01)
QUICK = Routing(eject_after=2, eject_seconds=0.02, eject_cap=0.05)
YES = http(200, completion("yes"))
NO_KEY = error(401, "no such key")


@asynccontextmanager
async def calling(spec: ReplicatedClientSpec) -> AsyncIterator[tuple[ReplicatedClient, Context]]:
    desk = Context()
    client = metered(spec, desk)
    try:
        yield client, desk
    finally:
        await client.close()


@asynccontextmanager
async def answering(*answers: bytes) -> AsyncIterator[tuple[str, list[bytes], RawServer]]:
    """A server that answers whatever it is asked with the first of a list."""
    said = list(answers)

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(said[0])

    async with raw_server(answer) as server:
        yield server.url, said, server


def asking(client: ReplicatedClient, *numbers: int) -> list[asyncio.Task[Any]]:
    return [asyncio.ensure_future(client.chat(question(number))) for number in numbers]


async def test_calls_of_a_replica_that_fails_go_elsewhere_and_home_again() -> None:
    async with replicas(2) as (one, two):
        spec = fleet(one.url, two.url, retry=TWICE, routing=QUICK)
        async with calling(spec) as (client, desk):
            for number in range(40):
                await client.chat(question(number))
            home = (await one.stats())["served"]
            assert 8 < home < 32
            await one.admin("pause")
            await asyncio.gather(*asking(client, *range(40)))
            assert (await two.stats())["served"] == 80 - home, "none failed, none was lost"
            assert desk.health.down == ""
            await one.admin("revive")
            await asyncio.sleep(0.06)
            for number in range(40):
                await client.chat(question(number))
            assert (await one.stats())["served"] == 2 * home


@pytest.mark.parametrize(
    ("affinity", "parts"), [("conversation", [2]), ("role", [0]), ("turn", [0, 2]), ("none", [])]
)
async def test_what_belongs_together_is_asked_at_one_place(affinity, parts: list[int]) -> None:
    async with answering(YES) as (one, _, first), answering(YES) as (two, _, second):
        async with calling(fleet(one, two, routing=Routing(affinity=affinity))) as (client, _):
            for _ in range(2):
                for number in range(24):
                    for role in ("teacher", "student"):
                        await client.chat(question(number, role))
    words = [[body["messages"][0]["content"].split() for body in each.bodies] for each in (first, second)]
    together = [{tuple(each[part] for part in parts) for each in asked} for asked in words]
    if parts:
        assert together[0].isdisjoint(together[1])
        assert len(together[0] | together[1]) in (2, 24, 48)
    else:
        assert [len(asked) for asked in words] == [48, 48]
    if affinity in ("conversation", "turn"):
        assert all(together)


async def test_a_dead_service_is_waited_for_and_counts_no_attempt() -> None:
    async with replicas(1) as (one,):
        spec = fleet(one.url, retry=TWICE, routing=QUICK)
        async with calling(spec) as (client, desk):
            assert (await client.chat(question())).text
            assert reading(desk).answered == 1
            await one.stop()
            calls = asking(client, *range(30))
            await until(lambda: desk.waiting == 30)
            assert "Connect" in desk.health.down and not desk.health.denied
            assert reading(desk).outstanding == 0
            await asyncio.sleep(0.2)  # longer than all attempts would take
            assert not any(call.done() for call in calls)
            await one.start()
            assert all([reply.text for reply in await asyncio.gather(*calls)])
            assert (desk.health.down, desk.waiting) == ("", 0)
        assert (await one.stats())["served"] == 30


async def test_calls_under_way_when_a_service_dies_are_asked_again() -> None:
    async with replicas(1, latency=0.3) as (one,):
        async with calling(fleet(one.url, retry=TWICE, routing=QUICK)) as (client, _):
            calls = asking(client, *range(10))
            while (await one.stats())["in_flight"] < 10:  # noqa: ASYNC110 - the server does not say
                await asyncio.sleep(0.01)
            await one.admin("die", {"seconds": 0.2})
            await asyncio.gather(*calls)


async def test_whoever_waits_does_not_look_all_the_time() -> None:
    async def silent(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)
        writer.transport.abort()

    async with raw_server(silent) as server:
        slower = Routing(eject_after=2, eject_seconds=0.1, eject_cap=1)
        async with calling(fleet(server.url, retry=TWICE, routing=slower, timeout=0.01)) as (client, desk):
            calls = asking(client, *range(20))
            await until(lambda: desk.waiting >= 19)
            before = len(server.heads)
            await asyncio.sleep(0.25)
            assert 1 <= len(server.heads) - before <= 2, "one of them looks, less and less often"
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)


async def test_a_service_that_refuses_the_run_is_waited_for_and_told_of() -> None:
    async with answering(YES) as (url, said, _):
        async with calling(fleet(url, retry=TWICE, routing=QUICK)) as (client, desk):
            await client.chat(question())
            said[0] = NO_KEY
            calls = asking(client, 1, 2, 3)
            await until(lambda: desk.health.denied)
            assert "no such key; the API key is missing or refused" in desk.health.down
            await asyncio.sleep(0.2)
            assert not any(call.done() for call in calls)
            said[0] = YES
            assert [reply.text for reply in await asyncio.gather(*calls)] == ["yes"] * 3
            assert desk.health == Health(answered=True)


async def test_the_first_answer_is_told_at_once_so_that_a_denial_can_be_judged() -> None:
    async with answering(YES) as (url, _, _):
        async with calling(fleet(url)) as (client, desk):
            assert not desk.health.answered
            await client.chat(question())
            assert desk.health.answered


async def test_a_request_that_alone_is_refused_like_a_run_fails_alone() -> None:
    """Some providers say 403 to what they will not discuss."""

    async def moderate(writer: asyncio.StreamWriter) -> None:
        body = server.bodies[-1]
        asked = body["messages"][0]["content"] if body else ""
        writer.write(error(403, "flagged") if asked == "student asks 13" else YES)

    async with raw_server(moderate) as server, calling(fleet(server.url, routing=QUICK)) as (client, desk):
        (flagged,) = asking(client, 13)
        numbers = iter(range(100, 100_000))
        async with asyncio.timeout(20):
            while not flagged.done():
                assert (await client.chat(question(next(numbers)))).text == "yes"
        with pytest.raises(LLMDenied, match="flagged"):
            await flagged
        assert desk.health.down == ""


async def test_an_impatient_service_says_at_once_that_it_is_away_and_looks_again() -> None:
    async with replicas(1) as (one,):
        spec = fleet(one.url, retry=TWICE, routing=QUICK, patient=False)
        async with calling(spec) as (client, desk):
            await client.chat(question())
            await one.stop()
            with pytest.raises(LLMUnavailable, match=r"m at http.* is away: cannot connect"):
                await client.chat(question())
            assert desk.health.down
            await one.start()
            await asyncio.sleep(0.06)
            assert (await client.chat(question())).text
            assert desk.health.down == ""


async def test_an_impatient_service_passes_a_denial_on_and_does_not_ask_all_the_time() -> None:
    async with answering(NO_KEY) as (url, _, server):
        spec = fleet(url, retry=TWICE, routing=Routing(eject_seconds=30.0), patient=False)
        async with calling(spec) as (client, _):
            with pytest.raises(LLMDenied, match="no such key"):
                await client.chat(question())
            for _ in range(3):
                with pytest.raises(LLMUnavailable, match="is away: HTTP 401: no such key"):
                    await client.chat(question())
    assert len(server.heads) == 1


@pytest.mark.parametrize("patient", [True, False])
async def test_one_replica_that_refuses_the_run_is_left_alone_by_it(patient: bool) -> None:
    async with answering(error(404, "no model m")) as (one, _, _), answering(YES) as (two, _, _):
        spec = fleet(one, two, retry=TWICE, routing=QUICK, patient=patient)
        async with calling(spec) as (client, desk):
            for number in range(20):
                assert (await client.chat(question(number))).text == "yes"
            assert desk.health.down == ""


@pytest.mark.parametrize("status", [429, 503, 529])
async def test_a_refused_call_is_told_of_and_made_again_until_it_is_accepted(status: int) -> None:
    async with answering(error(status, "slow down")) as (url, said, _):
        async with calling(fleet(url, retry=TWICE, routing=QUICK)) as (client, desk):
            (call,) = asking(client, 1)
            await until(lambda: reading(desk).refused > 5)
            assert "slow down" in reading(desk).refusal
            assert not call.done(), "a limit is no attempt"
            assert desk.health.down == "", "the only replica is not ejected for it"
            said[0] = YES
            await call


async def test_a_refused_call_waits_no_longer_than_until_a_later_one_is_answered() -> None:
    async with answering(error(429, "slow down", headers="Retry-After: 50\r\n")) as (url, said, _):
        async with calling(fleet(url)) as (client, desk):
            (call,) = asking(client, 1)
            await until(lambda: reading(desk).paused == 1)
            assert 40.0 < reading(desk).next_attempt <= 50.5
            said[0] = YES
            await client.chat(question())
            async with asyncio.timeout(5):
                await call


async def test_a_call_that_alone_is_refused_fails_in_the_end() -> None:
    """Some providers say 429 to a request that is above their limit, and would say so for ever."""

    async def limit(writer: asyncio.StreamWriter) -> None:
        body = server.bodies[-1]
        asked = body["messages"][0]["content"] if body else ""
        writer.write(error(429, "too much") if asked == "student asks 13" else YES)

    retry = Retry(base=0.001, cap=0.001)
    async with raw_server(limit) as server, calling(fleet(server.url, retry=retry)) as (client, _):
        (refused,) = asking(client, 13)
        numbers = iter(range(100, 100_000))
        async with asyncio.timeout(20):
            while not refused.done():
                assert (await client.chat(question(next(numbers)))).text == "yes"
        with pytest.raises(LLMUnavailable, match="too much"):
            await refused


async def test_of_several_replicas_an_overloaded_one_is_passed_over() -> None:
    async with answering(error(503, "<html>")) as (busy, _, _), answering(YES) as (free, _, _):
        routing = Routing(affinity="none", eject_after=1)
        async with calling(fleet(busy, free, routing=routing)) as (client, desk):
            for _ in range(4):
                await client.chat(question())
            assert reading(desk).refused <= 1


async def test_a_refused_request_is_an_answer_of_the_service() -> None:
    async with answering(error(400, "too odd")) as (url, _, _):
        async with calling(fleet(url, routing=Routing(eject_after=1))) as (client, desk):
            for _ in range(3):
                with pytest.raises(LLMRejected, match="too odd"):
                    await client.chat(question())
            assert desk.health.down == ""


async def test_a_cancelled_call_leaves_nothing_behind() -> None:
    async with replicas(2, rate_hang=1.0) as both:
        spec = fleet(*(each.url for each in both), routing=Routing(affinity="none"))
        async with calling(spec) as (client, desk):
            calls = asking(client, *range(12))
            await until(lambda: reading(desk).outstanding == 12)
            await asyncio.sleep(0.05)
            assert [(await each.stats())["in_flight"] for each in both] == [6, 6]
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            assert reading(desk).outstanding == 0
            await asyncio.sleep(0.02)
            for each in both:
                counts = await each.stats()
                assert (counts["in_flight"], counts["left"], counts["open_connections"]) == (0, 6, 0)
                await each.admin("behavior", {"rate_hang": 0.0})
            await asyncio.gather(*asking(client, *range(12)))
            assert [(await each.stats())["served"] for each in both] == [6, 6], "neither looks busier"


async def test_a_cancelled_call_that_waited_lets_the_others_look() -> None:
    async with replicas(1) as (one,):
        async with calling(fleet(one.url, retry=TWICE, routing=QUICK)) as (client, desk):
            await one.stop()
            calls = asking(client, *range(8))
            await until(lambda: desk.waiting == 8)
            for call in calls[:7]:
                call.cancel()
            await asyncio.gather(*calls[:7], return_exceptions=True)
            assert desk.waiting == 1
            await one.start()
            async with asyncio.timeout(5):
                assert (await calls[7]).text


async def test_a_client_that_is_closed_ends_its_calls() -> None:
    async with replicas(2, rate_hang=1.0) as (one, two):
        desk = Context()
        client = metered(fleet(one.url, retry=TWICE, routing=QUICK), desk)
        waiting = fleet(two.url, retry=TWICE, routing=QUICK).connect(ClientContext())
        await two.stop()
        calls = [*asking(client, 1, 2), *asking(waiting, 3)]
        await until(lambda: reading(desk).outstanding == 2)
        await asyncio.sleep(0.05)
        async with asyncio.timeout(1):
            await client.close()
            await waiting.close()
            ended = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(each, LLMUnavailable) and "is closed" in str(each) for each in ended)
        assert reading(desk).outstanding == 0
        with pytest.raises(LLMUnavailable, match="is closed"):
            await client.chat(question())


async def test_replicas_that_leave_answer_what_they_have_begun() -> None:
    async with replicas(2, latency=0.1) as (one, two):
        async with calling(fleet(one.url, retry=TWICE, routing=QUICK)) as (client, desk):
            calls = asking(client, *range(6))
            await asyncio.sleep(0.03)
            client._replicas.move([two.url])
            await asyncio.gather(*calls)
            await asyncio.gather(*asking(client, *range(6)))
            assert [(await each.stats())["served"] for each in (one, two)] == [6, 6]
            assert reading(desk).outstanding == 0


@asynccontextmanager
async def answered_once(**options: float) -> AsyncIterator[tuple[ReplicatedClient, Any]]:
    """A client that had an answer of a server which then fails, though it looks healthy."""
    async with replicas(1) as (one,):
        async with calling(fleet(one.url, retry=TWICE, routing=QUICK)) as (client, _):
            await client.chat(question(0))
            await one.admin("behavior", options)
            yield client, one


async def test_while_all_calls_fail_none_of_their_tries_counts() -> None:
    async with answered_once(rate_5xx=1.0) as (client, server):
        calls = asking(client, *range(1, 9))
        async with asyncio.timeout(10):
            while (await server.stats())["faults"]["5xx"] <= 2 * 8 * TWICE.attempts:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert not any(call.done() for call in calls)
        await server.admin("behavior", {"rate_5xx": 0.0})
        assert all(reply.text for reply in await asyncio.gather(*calls))


async def test_the_tries_of_a_call_that_fails_alone_count() -> None:
    async with answered_once(rate_5xx=1.0) as (client, _):
        with pytest.raises(LLMUnavailable, match="in 2 attempts"):
            await client.chat(question(1))


async def test_tries_count_at_a_server_that_has_never_answered() -> None:
    async with replicas(1, rate_5xx=1.0) as (one,):
        async with calling(fleet(one.url, retry=TWICE, routing=QUICK)) as (client, _):
            ended = await asyncio.gather(*asking(client, *range(4)), return_exceptions=True)
    assert {type(error) for error in ended} == {LLMUnavailable}
