"""Rates and calls at once are divided among agents and peers: fairly, and never more than there is."""

import asyncio
import math

import pytest
from talking import Talk, begun, call, drop

from peerloom.errors import ConfigError
from peerloom.services.llm.client.context import SOON_SECONDS
from peerloom.services.llm.limits.rates import RETURNED_SECONDS, Bucket
from peerloom.services.llm.limits.service_quota import LEASE_SECONDS, Limits
from peerloom.services.llm.limits.sharing import by_role, max_min, rounded
from peerloom.services.llm.usage.amounts import ANYTHING, QuotaGrant, decode_reports, encode


@pytest.mark.parametrize(
    "name", ["requests_per_minute", "tokens_per_minute", "concurrency", "window_seconds"]
)
@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_a_limit_is_more_than_nothing(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"llm.limits.{name} is {value}: it must be [01m]"):
        Limits(**{name: value})


@pytest.mark.parametrize("name", ["requests_per_minute", "tokens_per_minute", "window_seconds"])
def test_a_limit_has_an_end(name: str) -> None:
    with pytest.raises(ConfigError, match=f"llm.limits.{name} is inf: it must be finite"):
        Limits(**{name: math.inf})


def test_who_wants_little_gets_it_and_the_others_share_the_rest() -> None:
    assert max_min(10.0, {"a": 1.0, "b": 20.0, "c": 6.0}) == {"a": 1.0, "b": 4.5, "c": 4.5}
    assert max_min(100.0, {"a": 1.0, "b": 20.0}) == {"a": 1.0, "b": 20.0}
    assert max_min(5.0, {}) == {}


def test_shares_are_fair_between_agents_first_and_then_between_peers() -> None:
    wanted = {("flood", "a"): 100.0, ("flood", "b"): 100.0, ("rare", "b"): 2.0}
    assert by_role(12.0, wanted) == {"a": 5.0, "b": 7.0}


def test_whole_shares_add_up_to_no_more_than_there_is() -> None:
    assert sum(rounded({"a": 1.4, "b": 1.4, "c": 1.2}, 4).values()) == 4
    assert rounded({"a": 2.6, "b": 0.4}, 3) == {"a": 3, "b": 0}
    assert sum(rounded({"a": 2.5, "b": 2.5}, 4).values()) == 4


def test_a_bucket_fills_to_its_brim_and_to_one_call_beside_it() -> None:
    bucket = Bucket(10.0, 5.0, 0.0)
    assert bucket.fill(0.0) == 0.0
    assert bucket.fill(0.2) == 2.0
    assert bucket.fill(9.0) == 5.0
    assert bucket.fill(19.0, at_least=30.0) == 35.0
    bucket.take(40.0)
    assert bucket.fill(19.2) == pytest.approx(-3.0), "what was taken too much is made up for"
    assert bucket.fill(19.2 + 0.5) == pytest.approx(2.0)
    assert bucket.fill(0.0) == pytest.approx(2.0), "a clock that goes back changes nothing"


def test_what_is_given_back_late_is_not_saved_up() -> None:
    bucket = Bucket(10.0, 5.0, 0.0)
    bucket.take(-1_000.0)
    assert bucket.fill(0.0) == RETURNED_SECONDS * 10.0
    bucket.refused(0.5)
    assert bucket.fill(0.0) == -5.0


async def test_no_window_gets_more_than_the_rate_allows() -> None:
    limits = Limits(requests_per_minute=600)
    talk = Talk("a", "b", limits=limits)
    asked = [*talk.ask("a", call(), 2_000), *talk.ask("b", call(), 2_000)]
    at: list[float] = []
    for _ in range(2_400):
        await begun()
        talk.round(0.05)
        (count,) = await begun(asked)
        at += [talk.now] * (count - len(at))
    assert len(at) > 0.98 * 1_200
    for first in range(len(at)):
        inside = sum(at[first] <= each < at[first] + 60.0 for each in at[first : first + 700])
        assert inside <= 600
    await drop(asked)


async def test_agents_take_turns_whoever_has_more_calls() -> None:
    talk = Talk("a", "b", limits=Limits(requests_per_minute=600))
    flood = [*talk.ask("a", call(), 500, "flood"), *talk.ask("b", call(), 500, "flood")]
    rare = talk.ask("b", call(), 20, "rare")
    for _ in range(40):
        await begun()
        talk.round(0.05)
    counts = await begun(flood, rare)
    assert sum(counts) == pytest.approx(20, abs=2)
    assert counts[1] > 0.5 * counts[0], "two peers have fifty times as many calls of the other agent"
    await drop(flood, rare)


async def test_peers_get_as_much_as_each_other() -> None:
    talk = Talk("a", "b", "c", limits=Limits(requests_per_minute=600))
    groups = [talk.ask(peer, call(), 200) for peer in talk.desks]
    for _ in range(100):
        await begun()
        talk.round(0.06)
    counts = await begun(*groups)
    assert max(counts) - min(counts) <= 2 and sum(counts) >= 55
    await drop(*groups)


async def test_a_large_call_is_waited_for() -> None:
    talk = Talk("a", "b", limits=Limits(tokens_per_minute=6_000))
    large, small = talk.ask("a", call(400.0), 4, "large"), talk.ask("b", call(10.0), 900, "small")
    for _ in range(600):
        await begun()
        talk.round(0.05)
    counts = await begun(large, small)
    assert counts[0] == 4
    assert 4 * 400 + 10 * counts[1] == pytest.approx(3_000, rel=0.05)
    await drop(large, small)


async def test_slots_move_to_who_needs_them_and_never_add_up_to_more() -> None:
    talk = Talk("a", "b", limits=Limits(concurrency=10))
    first = talk.ask("a", call(), 30)
    for _ in range(5):
        talk.round(0.1)
        await begun()
    (running,) = await begun(first)
    assert running == 10
    second = talk.ask("b", call(), 30)
    ended = 0
    for _ in range(14):
        talk.round(0.1)
        counts = await begun(first, second)
        assert sum(counts) - ended <= 10
        if counts[0] > ended:
            talk.meters["a"].end(call(), call())
            ended += 1
            await begun()
    assert counts[1] == 5, "half of the slots are the other's now"
    await drop(first, second)


async def test_one_slot_is_enough_for_all() -> None:
    talk = Talk("a", "b", "c", limits=Limits(concurrency=1))
    groups = {peer: talk.ask(peer, call(), 3) for peer in talk.desks}
    done = dict.fromkeys(groups, 0)
    for _ in range(100):
        talk.round(0.1)
        counts = dict(zip(groups, await begun(*groups.values()), strict=True))
        running = {peer: counts[peer] - done[peer] for peer in groups}
        assert sum(running.values()) <= 1
        for peer, number in running.items():
            for _ in range(number):
                talk.meters[peer].end(call(), call())
                done[peer] += 1
        await begun()
    assert set(done.values()) == {3}


async def test_a_lost_peers_slots_are_given_to_the_others() -> None:
    talk = Talk("a", "b", limits=Limits(concurrency=4))
    groups = [talk.ask(peer, call(), 10) for peer in talk.desks]
    for _ in range(4):
        talk.round(0.1)
        await begun()
    assert await begun(*groups) == [2, 2]
    talk.allowance.lost("a")
    del talk.desks["a"]
    for _ in range(3):
        talk.round(0.1)
    assert await begun(*groups) == [2, 4]
    await drop(*groups)


async def test_a_refusal_holds_all_peers_for_as_long_as_was_asked() -> None:
    talk = Talk("a", "b", limits=Limits(requests_per_minute=6_000))
    asked = talk.ask("b", call(), 500)
    for _ in range(20):
        await begun()
        talk.round(0.05)
    (before,) = await begun(asked)
    talk.meters["a"].refused(2.0, "slow down", 0.0)
    await begun()
    talk.round(0.05)
    (held,) = await begun(asked)
    for _ in range(36):
        await begun()
        talk.round(0.05)
    assert await begun(asked) == [held]
    assert held - before <= 100 * 0.1 + 1
    for _ in range(40):
        await begun()
        talk.round(0.05)
    (after,) = await begun(asked)
    assert after > held
    await drop(asked)


@pytest.mark.parametrize("starts", [0.0, math.inf])
async def test_what_nobody_may_begin_with_or_needs_is_given_back(starts: float) -> None:
    talk = Talk("a", limits=Limits(requests_per_minute=600))
    asked = talk.ask("a", call(), 5)
    await begun(asked)
    talk.read("a")
    granted = ANYTHING._replace(requests=9.0)
    talk.desks["a"].apply_grants(
        encode([QuotaGrant(service="llm", number=1, granted=granted, slots=3.0, starts=starts)])
    )
    (started,) = await begun(asked)
    assert started == (3 if starts else 0)
    assert talk.reading("a").returned.requests == (0.0 if starts else 9.0), "two wait, and more may come"
    await drop(asked[started:])
    talk.now += 1.0
    talk.read("a")  # what began before it
    assert talk.reading("a").returned.requests == 9.0 - started


async def test_a_service_without_limits_gets_some_when_it_refuses_and_none_before() -> None:
    talk = Talk("a", "b")
    for peer in talk.desks:
        for _ in range(20):
            talk.meters[peer].begin()
    assert talk.round() == {}
    for _ in range(10):
        talk.meters["a"].refused(0.0, "slow down", 0.0)
    for _ in range(10):
        talk.meters["a"].end(None, call())
    grants = talk.round(1.0)
    assert set(grants) == {"a", "b"}
    assert {grant.slots for grant in grants.values()} == {math.inf}, "the other has not reported yet"
    for _ in range(10):
        talk.meters["a"].refused(0.0, "slow down", 0.0)
    grants = talk.round(0.1)
    assert sum(grant.slots for grant in grants.values()) < 40


async def test_a_call_that_is_given_up_leaves_its_place_and_what_it_was_granted() -> None:
    talk = Talk("a", limits=Limits(requests_per_minute=600))
    first, second = talk.ask("a", call(), 1), talk.ask("a", call(), 1)
    await begun(first, second)
    await drop(first)
    talk.round(LEASE_SECONDS)
    assert await begun(first, second) == [0, 1]
    assert talk.meters["a"].waiting == 0
    third = talk.ask("a", call(), 1)
    await begun(third)
    third[0].cancel()
    talk.round(LEASE_SECONDS)  # granted and given up at the same time
    await drop(third)
    talk.meters["a"].end(call(), call())
    assert talk.reading("a").outstanding == 0


async def test_while_nothing_is_limited_a_peer_reports_nothing() -> None:
    talk = Talk("a")
    desk, meter = talk.desks["a"], talk.meters["a"]
    report = asyncio.create_task(desk.report_usage())
    for _ in range(100):
        meter.begin()
        meter.answered(0.5, 10)
        meter.end(None, call())
    talk.now += 100.0
    await asyncio.sleep(3 * SOON_SECONDS)
    assert not report.done()
    assert (desk.read_usage(), desk.read_usage(last=True)) == (b"", b"")
    meter.refused(0.0, "slow down", 0.1)
    (reading,) = decode_reports(await report)
    assert (reading.attempts, reading.answered, reading.refused) == (100, 100, 1)


def test_a_refusal_that_is_read_together_with_an_answer_is_known() -> None:
    talk = Talk("a")
    meter = talk.meters["a"]
    talk.round()
    for _ in range(2):
        meter.begin()
    talk.round(0.1)
    meter.end(None, call())
    meter.answered(0.1, 1)
    meter.end(None, call())
    meter.refused(40.0, "HTTP 429", 0.1)
    with meter.pause(40.0):
        talk.round(0.1)
        (refusing,) = talk.allowance.refusing()
        assert refusing.until == pytest.approx(40.1)
        assert refusing.why == "HTTP 429"
