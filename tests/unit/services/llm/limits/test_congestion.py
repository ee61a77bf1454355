"""The load that a provider accepts is found from its refusals, and random refusals are told from a limit."""

import math
from collections.abc import Callable
from itertools import pairwise
from random import Random

import pytest

from peerloom.services.llm.limits.congestion import (
    FREE_AFTER,
    PROBES,
    SHORTEST_SCALE_SECONDS,
    Congestion,
    Load,
)

STEP = 0.05
MANY = Load(1_000, 2_000)


class Provider:
    """A provider asked at the rate that is found, by calls that wait without end; the clock is the test's.

    Args:
        refuse: the number of attempts that are refused, of those at a time.
        demand: attempts per second that would be made without a limit.
    """

    def __init__(self, refuse: Callable[[int, float], int], *, demand: float = 200.0) -> None:
        self.refuse = refuse
        self.demand = demand
        self.now = 0.0
        self.owed = 0.0
        self.congestion = Congestion(0.0)
        self.attempts: list[tuple[float, int]] = []
        self.refused: list[tuple[float, int]] = []

    def run(self, seconds: float, retry_after: float = 0.0) -> "Provider":
        for _ in range(round(seconds / STEP)):
            self.now += STEP
            self.owed = min(self.owed + self.demand * STEP, 50.0)
            self.congestion.advance(wanted=True, load=MANY, now=self.now)
            attempts = self.congestion.take(math.floor(self.owed), self.now)
            self.owed -= attempts
            refused = self.refuse(attempts, self.now) if attempts else 0
            self.attempts.append((self.now, attempts))
            self.refused.append((self.now, refused))
            asked = retry_after if refused else 0.0
            self.congestion.observe(attempts, refused, self.now, retry_after=asked, lag=0.0, load=MANY)
        return self

    def rate(self, begin: float, end: float) -> float:
        return sum(count for at, count in self.attempts if begin < at <= end) / (end - begin)

    def share(self, begin: float) -> float:
        attempts = sum(count for at, count in self.attempts if at > begin)
        return sum(count for at, count in self.refused if at > begin) / attempts


def steady(per_second: float) -> Callable[[int, float], int]:
    """Accept so many in each second."""
    let_in: list[float] = []

    def refuse(attempts: int, now: float) -> int:
        refused = 0
        for _ in range(attempts):
            if sum(at > now - 1.0 for at in let_in[-math.ceil(per_second) :]) >= per_second:
                refused += 1
            else:
                let_in.append(now)
        return refused

    return refuse


def shut(*spells: tuple[float, float]) -> Callable[[int, float], int]:
    """Refuse everything during these spells."""
    return lambda attempts, now: attempts if any(begin <= now < end for begin, end in spells) else 0


def random(share: float) -> Callable[[int, float], int]:
    rng = Random(3)
    return lambda attempts, now: sum(rng.random() < share for _ in range(attempts))


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 0.2])
def test_refusals_that_do_not_depend_on_the_load_slow_nothing_for_long(share: float) -> None:
    provider = Provider(random(share)).run(30.0)
    assert provider.rate(5.0, 30.0) > 0.8 * provider.demand


def test_a_rate_is_found_and_hardly_a_call_is_refused_then() -> None:
    provider = Provider(steady(20.0)).run(60.0)
    assert provider.rate(20.0, 60.0) == pytest.approx(20.0, rel=0.15)
    assert provider.share(20.0) < 0.05


def test_a_closed_provider_is_left_alone_for_as_long_as_it_asks() -> None:
    provider = Provider(shut((1.0, 31.0))).run(2.0, retry_after=30.0)
    congestion = provider.congestion
    assert congestion.closed
    assert 31.0 < congestion.closed_until < 32.0
    provider.run(28.0)
    assert sum(count for at, count in provider.attempts if at > 1.5) == 0
    provider.run(3.0)
    assert not congestion.closed


def test_a_closed_provider_that_asks_for_nothing_is_tried_ever_less_often() -> None:
    provider = Provider(shut((1.0, 100.0))).run(60.0)
    tries = sorted({at for at, count in provider.attempts if at > 1.5 and count})
    assert sum(count for at, count in provider.attempts if at > 1.5) < 12 * PROBES
    pauses = [after - before for before, after in pairwise(tries)]
    assert max(pauses[:3]) < 3.0 and max(pauses) == pytest.approx(8.0, abs=0.5)


def test_a_short_wait_that_is_asked_for_again_and_again_is_not_believed_for_ever() -> None:
    provider = Provider(shut((1.0, 100.0))).run(60.0, retry_after=0.01)
    assert sum(count for at, count in provider.attempts if at > 5.0) < 30 * PROBES


def test_calls_resume_gradually_once_some_are_accepted() -> None:
    provider = Provider(shut((1.0, 6.0))).run(30.0)
    counts = [(at, count) for at, count in provider.attempts if at >= 6.0 and count]
    first = counts[0][0]
    assert counts[0][1] <= PROBES
    rates = [provider.rate(first + 0.5 * each, first + 0.5 * each + 0.5) for each in range(4)]
    assert rates[0] < 40.0
    assert rates[0] < rates[1] < rates[2]
    assert provider.rate(20.0, 30.0) > 0.8 * provider.demand


def test_nothing_is_limited_any_more_after_a_while_without_a_refusal() -> None:
    provider = Provider(shut((1.0, 2.0))).run(3.0)
    assert provider.congestion.limiting
    provider.run(FREE_AFTER * SHORTEST_SCALE_SECONDS + 3.0)
    assert not provider.congestion.limiting


def test_a_refusal_or_two_limit_nothing() -> None:
    congestion = Congestion(0.0)
    assert not congestion.observe(2, 2, 0.5, retry_after=60.0, lag=0.0, load=MANY)
    assert congestion.take(100, 0.6) == 100


def test_where_rates_are_declared_one_refusal_is_enough_to_wait() -> None:
    congestion = Congestion(0.0, declared=True)
    assert congestion.observe(50, 1, 0.5, retry_after=0.7, lag=0.0, load=MANY)
    assert congestion.take(100, 1.1) == 0
    assert congestion.take(100, 1.3) == PROBES


def test_as_few_calls_as_a_plain_client_has_are_left_alone() -> None:
    congestion = Congestion(0.0)
    for step in range(100):
        few = Load(0, PROBES)
        assert not congestion.observe(1, 1, step / 10, retry_after=0.0, lag=0.0, load=few)
    assert congestion.take(100, 11.0) == 100


@pytest.mark.parametrize("lag", [0.3, 1.0, 2.0])
def test_a_provider_that_takes_its_time_to_refuse_is_found_to_be_closed(lag: float) -> None:
    congestion, under_way = Congestion(0.0), list[tuple[float, int]]()
    closed = 0
    for step in range(1_200):
        now = step * STEP
        congestion.advance(wanted=True, load=MANY, now=now)
        attempts = congestion.take(100, now)
        under_way.append((now, attempts))
        refused = 0
        while under_way[0][0] <= now - lag:
            refused += under_way.pop(0)[1]
        congestion.observe(attempts, refused, now, retry_after=0.0, lag=lag, load=MANY)
        closed += now > 20.0 and congestion.closed
    assert closed == pytest.approx(40.0 / STEP, rel=0.02)


def test_a_provider_that_is_closed_at_first_is_as_fast_as_any_once_it_opens() -> None:
    provider = Provider(shut((0.0, 60.0))).run(90.0)
    assert provider.rate(75.0, 90.0) > 0.8 * provider.demand


def test_a_slow_provider_gets_fewer_calls_at_once() -> None:
    congestion = Congestion(0.0)
    congestion.slow(50, 1.0)
    assert congestion.ceiling == 45.0
