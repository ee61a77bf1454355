"""Retries: how long, how often, and what is said in the end."""

from email.utils import formatdate

import pytest

from peerloom.errors import ConfigError, LLMUnavailable
from peerloom.services.llm.retry import Retry, Retryable, RetryState, retry_after


class Clock:
    """Time that passes only by waiting."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now


def give_up(clock: Clock, *failures: Retryable, uniform=lambda low, high: high, **policy) -> str:
    """A call that fails in these ways, the last one again and again; the final error."""
    tries = RetryState(Retry(**policy), "http://llm/v1", clock.now, clock, uniform)
    with pytest.raises(LLMUnavailable) as caught:
        for number in range(1000):
            wait = tries.wait(failures[min(number, len(failures) - 1)], 0.0)
            clock.waits.append(wait)
            clock.now += wait
    return str(caught.value)


BUSY = Retryable("HTTP 503: busy")
AWAY = Retryable("Connection refused", taken=False)
LIMIT = Retryable("HTTP 429: slow down", limit=True)


def test_waits_double_up_to_the_cap_and_then_it_gives_up() -> None:
    clock = Clock()
    text = give_up(clock, Retryable("HTTP 500: first"), BUSY, attempts=6, base=1, cap=5)
    assert clock.waits == [1, 2, 4, 5, 5]
    assert text == "http://llm/v1 did not answer in 6 attempts over 17.0 s; last: HTTP 503: busy"


def test_the_wait_is_drawn_from_all_of_the_range() -> None:
    drawn: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        drawn.append((low, high))
        return 0.25

    clock = Clock()
    give_up(clock, BUSY, uniform=uniform, attempts=3, base=1)
    assert drawn == [(0.0, 1.0), (0.0, 2.0), (0.0, 4.0)]
    assert clock.waits == [0.25, 0.25]


def test_retry_after_is_waited_for_unless_it_is_above_the_cap() -> None:
    clock = Clock()
    give_up(clock, Retryable("x", 7), attempts=2, base=0, retry_after_cap=9)
    give_up(clock, Retryable("x", 3600), attempts=2, base=0, retry_after_cap=9)
    assert clock.waits == [7, 0], "an absurd one is ignored"


def test_no_attempt_begins_after_max_elapsed() -> None:
    clock = Clock()
    assert "in 3 attempts over 3.0 s" in give_up(clock, BUSY, attempts=99, base=1, max_elapsed=6)
    assert clock.waits == [1, 2]


def test_attempts_that_no_server_took_or_a_limit_refused_cost_time_alone() -> None:
    for free in AWAY, LIMIT:
        clock = Clock()
        give_up(clock, *[free] * 21, BUSY, attempts=2, base=1, cap=4)
        assert clock.waits == [1, 2] + [4] * 20, "and yet it asks less and less often"


def test_a_server_that_stays_away() -> None:
    text = give_up(Clock(), AWAY, attempts=2, base=1, cap=5, max_elapsed=30)
    assert "in 8 attempts over 27.0 s; last: Connection refused" in text
    assert "in 1 attempt over 0.0 s" in give_up(Clock(), AWAY, attempts=1)


def test_time_that_is_excused_does_not_count() -> None:
    clock = Clock()
    tries = RetryState(Retry(base=1, max_elapsed=6), "it", clock.now, clock, lambda low, high: high)
    clock.now = 100.0
    assert tries.wait(BUSY, 99.0) == 1.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "3"}, 3.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "Retry-After": "1"}, 0.25),
        ({"Retry-After": formatdate(1_000_060, usegmt=True)}, 60.0),
        ({"Retry-After": formatdate(999_000, usegmt=True)}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "Fri, 31 Dec 99999999999999999999 23:59:59 GMT"}, None),
        ({"Retry-After": "Fri, 31 Dec 2026 23:59:59 +99999999999999999999"}, None),
    ],
)
def test_retry_after_reads_seconds_milliseconds_and_dates(headers, seconds) -> None:
    assert retry_after(headers, now=1_000_000) == seconds


def test_impossible_policies_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"retry.attempts is 0"):
        Retry(attempts=0)
    with pytest.raises(ConfigError, match=r"retry.cap is -1"):
        Retry(cap=-1)
