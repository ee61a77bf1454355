"""A budget over several peers: what is left is used, a lost one's share is gone, and nothing counts twice."""

import math

import pytest
from talking import Talk, begun, call, drop

from peerloom.services.llm.usage.amounts import NOTHING, Amount
from peerloom.services.llm.usage.budget import Budget, Spending


async def test_calls_begin_only_when_they_are_granted() -> None:
    talk = Talk("a", budget=Budget(tokens=1_000))
    asked = talk.ask("a", call(100.0), 3)
    assert await begun(asked) == [0]
    talk.round()
    assert await begun(asked) == [3]
    assert talk.allowance.spending.held.tokens == 300.0


async def test_what_a_call_leaves_is_given_back_and_granted_to_others() -> None:
    talk = Talk("a", "b", budget=Budget(tokens=300))
    first, second = talk.ask("a", call(300.0)), talk.ask("b", call(250.0))
    await begun(first, second)
    talk.round()
    assert await begun(first, second) == [1, 0]
    talk.meters["a"].end(call(300.0), call(40.0))
    talk.round()
    talk.round()
    assert await begun(first, second) == [1, 1]
    spending = talk.allowance.spending
    assert (spending.used.tokens, spending.held.tokens, spending.left.tokens) == (40.0, 250.0, 10.0)


async def test_what_is_left_goes_to_those_that_it_covers_and_then_it_is_used_up() -> None:
    """A small call behind a large one must get what the large one cannot use, or both wait for ever."""
    talk = Talk("a", budget=Budget(tokens=25))
    large = talk.ask("a", call(30.0), role="large")
    small = talk.ask("a", call(20.0), role="small")
    assert await begun(large, small) == [0, 0]
    for _ in range(4):
        talk.round(0.1)
        await begun()
    assert await begun(large, small) == [0, 1]
    assert not talk.allowance.exhausted, "a call is under way, which may leave some"
    talk.meters["a"].end(call(20.0), call(15.0))
    for _ in range(3):
        talk.round(0.1)
    assert talk.allowance.exhausted
    await drop(large)


async def test_what_others_hold_and_do_not_use_comes_back_before_a_budget_is_used_up() -> None:
    talk = Talk("a", "b", budget=Budget(tokens=100))
    first = talk.ask("a", call(80.0))
    await begun(first)
    talk.round()
    second = talk.ask("b", call(90.0))
    await begun(second)
    talk.meters["a"].end(call(80.0), Amount(requests=1.0))  # refused
    talk.allowance.take("b", talk.read("b"), talk.now)
    talk.round(0.1)
    assert not talk.allowance.exhausted
    talk.round(0.1)
    assert await begun(second) == [1]


async def test_a_call_that_takes_more_than_it_reserved_leaves_less_for_others() -> None:
    talk = Talk("a", budget=Budget(tokens=100))
    first = talk.ask("a", call(50.0))
    await begun(first)
    talk.round()
    talk.meters["a"].end(call(50.0), call(80.0))
    second = talk.ask("a", call(30.0))
    await begun(second)
    for _ in range(3):
        talk.round()
    assert await begun(second) == [0]
    assert talk.allowance.exhausted
    await drop(second)


async def test_what_a_lost_peer_held_counts_as_used() -> None:
    talk = Talk("a", "b", budget=Budget(tokens=1_000))
    asked = talk.ask("a", call(100.0), 4)
    await begun(asked)
    talk.round()
    talk.meters["a"].end(call(100.0), call(70.0))
    before = talk.read("a")
    talk.allowance.lost("a")
    assert talk.allowance.spending.used.tokens == 400.0
    talk.allowance.take("a", before, talk.now)
    assert talk.allowance.spending.used.tokens == 400.0, (
        "what it had said before comes late, and counts nothing"
    )
    assert (talk.allowance.outstanding, talk.allowance.waiting) == (0, 0)


async def test_a_peer_that_has_ended_holds_nothing() -> None:
    talk = Talk("a", budget=Budget(tokens=1_000))
    asked = talk.ask("a", call(100.0), 4)
    await begun(asked)
    talk.round()
    for _ in range(4):
        talk.meters["a"].end(call(100.0), call(70.0))
    talk.allowance.take("a", talk.read("a", last=True), talk.now)
    talk.allowance.lost("a")
    assert talk.allowance.spending.used.tokens == pytest.approx(280.0)


async def test_a_grant_that_the_peer_never_heard_counts_only_if_it_is_lost() -> None:
    for last, used in ((True, 0.0), (False, 100.0)):
        talk = Talk("a", budget=Budget(tokens=1_000))
        asked = talk.ask("a", call(100.0))
        await begun(asked)
        talk.allowance.take("a", talk.read("a"), talk.now)
        talk.grants()
        await drop(asked)
        talk.allowance.take("a", talk.read("a", last=last), talk.now)
        talk.allowance.lost("a")
        assert talk.allowance.spending.used.tokens == used


@pytest.mark.parametrize("twice", [True, False])
async def test_messages_that_are_lost_late_or_twice_do_no_harm(twice: bool) -> None:
    talk = Talk("a", "b", budget=Budget(calls=60))
    asked = {peer: talk.ask(peer, call(), 40) for peer in ("a", "b")}
    old: list[tuple[str, bytes]] = []
    old_grants: list[tuple[str, bytes]] = []
    done = {"a": 0, "b": 0}
    for number in range(200):
        for peer in ("a", "b"):
            said = talk.read(peer)
            old.append((peer, said))
            if number % 3:
                talk.allowance.take(peer, said, talk.now)
            if twice:
                talk.allowance.take(*old[number // 2], talk.now)
        for peer, data in talk.grants().items():
            old_grants.append((peer, data))
            if number % 2:
                talk.desks[peer].apply_grants(data)
            late, older = old_grants[len(old_grants) // 2]
            talk.desks[late].apply_grants(older)
        for peer in ("a", "b"):
            (count,) = await begun(asked[peer])
            for _ in range(count - done[peer]):
                talk.meters[peer].end(call(), call())
            done[peer] = count
        talk.now += 0.1
    for _ in range(3):
        talk.round(0.1)
    assert sum(done.values()) == 60 == talk.allowance.spending.used.calls
    assert talk.allowance.exhausted
    await drop(*asked.values())


def test_what_earlier_sessions_used_counts_and_a_larger_budget_goes_on() -> None:
    spending = Spending(Budget(tokens=1_000), Amount(tokens=1_000.0))
    assert spending.left.tokens == 0.0
    assert Spending(Budget(tokens=1_500), spending.used).left.tokens == 500.0
    assert Spending(Budget(), spending.used).left.tokens == math.inf
    assert not Spending(Budget(), NOTHING).bounded
