"""Retries: how long, how often, and what is said in the end."""

import asyncio
from email.utils import formatdate

import pytest

from peerloom.errors import ConfigError, LLMUnavailable
from peerloom.services.llm.retry import Retrier, Retry, Retryable, retry_after


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def retrier(clock: Clock, *, uniform=lambda low, high: high, **policy) -> Retrier:
    return Retrier(
        Retry(**policy), "http://llm/v1", sleep=clock.sleep, clock=lambda: clock.now, uniform=uniform
    )


async def fail() -> str:
    raise Retryable("HTTP 503: busy")


async def test_waits_double_up_to_the_cap_and_then_it_gives_up() -> None:
    clock = Clock()
    with pytest.raises(LLMUnavailable) as caught:
        await retrier(clock, attempts=6, base=1, cap=5).again(Retryable("HTTP 500: first"), 0.0, fail)
    assert clock.waits == [1, 2, 4, 5, 5]
    assert str(caught.value) == (
        "http://llm/v1 did not answer in 6 attempts over 17.0 s; last: HTTP 503: busy"
    )


async def test_the_wait_is_drawn_from_all_of_the_range() -> None:
    drawn: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        drawn.append((low, high))
        return 0.25

    clock = Clock()
    with pytest.raises(LLMUnavailable):
        await retrier(clock, uniform=uniform, attempts=3, base=1).again(Retryable("x"), 0.0, fail)
    assert drawn == [(0.0, 1.0), (0.0, 2.0), (0.0, 4.0)]
    assert clock.waits == [0.25, 0.25]


async def test_a_later_success_is_the_result() -> None:
    outcomes = iter([Retryable("still busy"), "done"])

    async def attempt(word: str) -> str:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return f"{word} {outcome}"

    assert await retrier(Clock()).again(Retryable("busy"), 0.0, attempt, "well") == "well done"


async def test_retry_after_is_waited_for_up_to_its_cap() -> None:
    clock = Clock()
    with pytest.raises(LLMUnavailable):
        await retrier(clock, attempts=2, base=0, retry_after_cap=9).again(Retryable("x", 7), 0.0, fail)
    with pytest.raises(LLMUnavailable):
        await retrier(clock, attempts=2, base=0, retry_after_cap=9).again(Retryable("x", 3600), 0.0, fail)
    assert clock.waits == [7, 9]


async def test_no_attempt_begins_after_max_elapsed() -> None:
    clock = Clock()
    with pytest.raises(LLMUnavailable, match=r"in 3 attempts over 3.0 s"):
        await retrier(clock, attempts=99, base=1, max_elapsed=6).again(Retryable("x"), 0.0, fail)
    assert clock.waits == [1, 2]


async def test_other_errors_and_cancellation_pass_through() -> None:
    async def broken() -> str:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        await retrier(Clock()).again(Retryable("x"), 0.0, broken)

    async def cancelled() -> str:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await retrier(Clock()).again(Retryable("x"), 0.0, cancelled)


def away() -> Retryable:
    return Retryable("Connection refused", taken=False)


async def test_attempts_that_no_server_took_cost_time_alone() -> None:
    outcomes = iter([*(away() for _ in range(20)), Retryable("HTTP 500: tried"), "done"])

    async def attempt() -> str:
        outcome = next(outcomes)
        if isinstance(outcome, Retryable):
            raise outcome
        return outcome

    clock = Clock()
    assert await retrier(clock, attempts=2, base=1, cap=4).again(away(), 0.0, attempt) == "done"
    assert clock.waits == [1, 2] + [4] * 20, "and yet it asks less and less often"


async def test_a_server_that_stays_away() -> None:
    async def attempt() -> str:
        raise away()

    with pytest.raises(LLMUnavailable, match=r"in 8 attempts over 27\.0 s; last: Connection refused"):
        await retrier(Clock(), attempts=2, base=1, cap=5, max_elapsed=30).again(away(), 0.0, attempt)
    with pytest.raises(LLMUnavailable, match=r"in 1 attempt over 0\.0 s"):
        await retrier(Clock(), attempts=1).again(away(), 0.0, attempt)


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
    ],
)
def test_retry_after_reads_seconds_milliseconds_and_dates(headers, seconds) -> None:
    assert retry_after(headers, now=1_000_000) == seconds


def test_impossible_policies_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"retry.attempts is 0"):
        Retry(attempts=0)
    with pytest.raises(ConfigError, match=r"retry.cap is -1"):
        Retry(cap=-1)
