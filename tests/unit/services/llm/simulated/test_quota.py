"""A strict provider's count: exact in every window, wherever it begins, and honest about the wait."""

from random import Random

import pytest

from peerloom.services.llm.simulated.behavior import SimulatorOptions
from peerloom.services.llm.simulated.quota import Quota, Refusal


def let_in(quota: Quota, calls: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """The calls (time, tokens) that a quota lets in; each is over at once."""
    found: list[tuple[float, int]] = []
    for now, tokens in calls:
        if quota.enter(tokens, now) is None:
            found.append((now, tokens))
            quota.leave()
    return found


def test_nothing_is_limited_unless_it_is_said() -> None:
    quota = Quota(SimulatorOptions())
    assert len(let_in(quota, [(0.0, 1_000_000)] * 1_000)) == 1_000
    assert quota.fits(10**9)


def test_requests_are_counted_over_a_sliding_window() -> None:
    quota = Quota(SimulatorOptions(limit_rpm=2, limit_window=5.0))
    assert quota.enter(9, 0.0) is None
    assert quota.enter(9, 3.0) is None
    assert quota.enter(9, 4.0) == Refusal("requests", 1.0)
    assert quota.enter(9, 4.999) is not None
    assert quota.enter(9, 5.0) is None, "the first has left the window"
    assert quota.enter(9, 5.0) == Refusal("requests", 3.0)


def test_tokens_are_counted_over_it_too_and_what_is_refused_counts_nothing() -> None:
    quota = Quota(SimulatorOptions(limit_tpm=100, limit_window=5.0))
    for now in (0.0, 1.0, 2.0):
        assert quota.enter(30, now) is None
    assert quota.enter(20, 3.0) == Refusal("tokens", 2.0)
    assert quota.enter(50, 3.0) == Refusal("tokens", 3.0), "two of them have to leave"
    assert quota.enter(10, 3.0) is None
    assert quota.used(3.0)["tokens"] == 100
    assert quota.used(7.0)["tokens"] == 10
    assert quota.used(99.0) == {
        "seconds": 5.0,
        "requests": 0,
        "tokens": 0,
        "most_requests": 4,
        "most_tokens": 100,
    }
    assert quota.fits(100) and not quota.fits(101)


def test_calls_at_once_are_those_that_are_not_over() -> None:
    quota = Quota(SimulatorOptions(limit_concurrency=2))
    assert [quota.enter(0, 0.0) for _ in range(3)] == [None, None, Refusal("concurrency", None)]
    quota.leave()
    assert quota.enter(0, 0.0) is None
    assert (quota.running, quota.most_running) == (2, 2)


def test_a_storm_refuses_everything_for_its_time() -> None:
    quota = Quota(SimulatorOptions(storm_every=10.0, storm_seconds=2.0), 100.0)
    calm = [now for now in range(100, 135) if quota.enter(1, float(now)) is None]
    assert sorted(set(range(100, 135)) - set(calm)) == [110, 111, 120, 121, 130, 131]


@pytest.mark.parametrize("seed", range(20))
def test_no_window_ever_holds_more_than_the_limits_and_no_wait_is_too_short(seed: int) -> None:
    rng = Random(seed)
    window = rng.choice((0.125, 1.0, 8.0, 64.0))  # multiples of a tick are added without rounding
    tick = window / 128
    requests, tokens = rng.randint(1, 20), rng.randint(50, 2_000)
    quota = Quota(SimulatorOptions(limit_rpm=requests, limit_tpm=tokens, limit_window=window))
    now, taken = 1_024.0, []
    for _ in range(1_000):
        now += tick * rng.choice((0, int(rng.expovariate(3.0 * requests / 128)), 19))
        each = rng.randint(1, min(300, tokens))
        refusal = quota.enter(each, now)
        if refusal is not None and rng.random() < 0.3:
            assert refusal.seconds is not None and 0 < refusal.seconds <= window
            assert quota.enter(each, now + refusal.seconds * 0.999) is not None, "earlier would not have done"
            now += refusal.seconds
            refusal = quota.enter(each, now)
            assert refusal is None, "after the wait it is let in"
        if refusal is None:
            taken.append((now, each))
    assert len(taken) > requests
    for begin, _ in taken:
        inside = [each for at, each in taken if begin <= at < begin + window]
        assert len(inside) <= requests and sum(inside) <= tokens
