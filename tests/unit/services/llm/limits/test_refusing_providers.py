"""Providers that refuse calls hardly delay a run, whatever the refusals look like and whoever asks."""

from collections.abc import Callable, Sequence

import pytest
from refusing import (
    FENCED_SECONDS,
    Refuse,
    Work,
    at_random,
    do,
    do_freely,
    do_plainly,
    in_bursts,
    in_storms,
    leaky_bucket,
    window,
)

from peerloom.services.llm.limits.service_quota import Limits

YEAR = 365 * 24 * 3600.0
TIMES = 1.5
"""The most that a run may take, in times of the slowest of what it is compared with."""

RETRY_AFTER: dict[str, Callable[[float], float | None]] = {
    "nothing": lambda seconds: None,
    "exactly": lambda seconds: max(seconds, 0.01),
    "a second": lambda seconds: 1.0,
    "a fraction": lambda seconds: 0.25,
    "a year": lambda seconds: YEAR,
}
PEERS: dict[str, Sequence[int]] = {
    "one": (40,),
    "two": (20, 20),
    "two, one idle": (40, 0),
    "four, nearly idle": (37, 1, 1, 1),
    "eight": (5,) * 8,
    "eight, seven idle": (40, 0, 0, 0, 0, 0, 0, 0),
}
WINDOWS: dict[str, tuple[Callable[[], Refuse], float]] = {
    "60 in 2 s": (lambda: window(60, 2.0), 3 * 2.0),
    "100 in 10 s": (lambda: window(100, 10.0), 1.4 * 10.0),
    "120 in 60 s": (lambda: window(120, 60.0), 60.0),
    "20 a second, 10 more at once": (lambda: leaky_bucket(20.0, 10), 240 / 20.0),
    "2 a second": (lambda: leaky_bucket(2.0), 240 / 2.0),
}
"""Rules, and the seconds that 240 calls take at best."""
ALL = pytest.mark.slow


def check(work: Work, ideal: float = 0.0) -> None:
    most = max(do_freely(work).seconds, do_plainly(work).seconds, ideal)
    done = do(work)
    assert done.seconds <= TIMES * most, f"{done.seconds:.1f} s, {most:.1f} s are enough"


@pytest.mark.parametrize("peers", PEERS)
@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 0.2])
def test_refusals_at_random(share: float, peers: str) -> None:
    check(Work(refuse=lambda: at_random(share), tasks=PEERS[peers], retry_after=RETRY_AFTER["a second"]))


@pytest.mark.parametrize("rule", [in_bursts, in_storms])
@pytest.mark.parametrize("share", [0.05, 0.2])
@pytest.mark.parametrize("peers", ["one", "two, one idle", "eight"])
def test_refusals_in_bursts(rule: Callable[[float], Refuse], share: float, peers: str) -> None:
    check(Work(refuse=lambda: rule(share), tasks=PEERS[peers]))


@pytest.mark.parametrize("rule", WINDOWS)
@pytest.mark.parametrize("asked", ["nothing", "exactly"])
def test_a_strict_window(rule: str, asked: str) -> None:
    refuse, ideal = WINDOWS[rule]
    check(Work(refuse=refuse, retry_after=RETRY_AFTER[asked], tasks=PEERS["two, one idle"]), ideal)


@ALL
@pytest.mark.parametrize("peers", PEERS)
@pytest.mark.parametrize("asked", RETRY_AFTER)
@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 0.2])
@pytest.mark.parametrize("rule", [at_random, in_bursts, in_storms])
def test_every_kind_of_refusal(rule: Callable[[float], Refuse], share: float, asked: str, peers: str) -> None:
    check(Work(refuse=lambda: rule(share), retry_after=RETRY_AFTER[asked], tasks=PEERS[peers], seed=2))


@ALL
@pytest.mark.parametrize("peers", PEERS)
@pytest.mark.parametrize("asked", RETRY_AFTER)
@pytest.mark.parametrize("rule", WINDOWS)
def test_every_kind_of_window(rule: str, asked: str, peers: str) -> None:
    refuse, ideal = WINDOWS[rule]
    check(Work(refuse=refuse, retry_after=RETRY_AFTER[asked], tasks=PEERS[peers]), ideal)


@pytest.mark.parametrize("limits", [Limits(), Limits(concurrency=10)], ids=["found", "declared"])
def test_peers_that_come_late_go_idle_and_lose_messages(limits: Limits) -> None:
    check(
        Work(
            refuse=lambda: at_random(0.05),
            tasks=(20, 10, 10, 0),
            late={1: 1.0, 2: 3.0},
            lost=0.1,
            limits=limits,
            seed=2,
        )
    )


def test_an_idle_peers_slots_go_to_those_that_need_them() -> None:
    """They end by themselves: the idle one is asked for nothing, and loses the messages in any case."""
    work = Work(tasks=(1, 40), late={1: 2.0}, limits=Limits(concurrency=8), lost=0.3)
    done = do(work)
    assert done.most_in_flight <= 8
    assert done.seconds <= 2.0 + TIMES * 41 * 6 * 0.1 / 8


def test_slots_of_a_stopped_peer_are_given_out_only_when_it_is_fenced() -> None:
    work = Work(tasks=(10, 10), latency=2.0, calls=3, limits=Limits(concurrency=8), stopped=(0, 1.0))
    done = do(work)
    assert done.most_in_flight <= 8
    assert done.seconds >= FENCED_SECONDS


def test_a_stopped_peer_does_not_hold_up_the_others() -> None:
    work = Work(tasks=(2, 30), limits=Limits(concurrency=8), stopped=(0, 0.3))
    assert do(work).seconds <= FENCED_SECONDS + TIMES * 32 * 6 * 0.1 / 6
