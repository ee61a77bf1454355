"""How fast a provider lets itself be asked is found out: cuts, growth, and when it is as free as before."""

import math

import pytest

from peerloom.services.llm.limits.pace import CUT, FREE_AFTER_SECONDS, LEAST_FACTOR, Pace


def found(*, rates: bool = False, watch_slowness: bool = False) -> Pace:
    """A pace after a minute in which fifty calls were under way, of one second each."""
    pace = Pace(rates=rates, watch_slowness=watch_slowness, now=0.0)
    for second in range(60):
        pace.answered(50, 50.0, 5_000.0, 50, float(second))
        pace.pass_time(50, float(second))
    return pace


def test_a_refusal_among_a_hundred_answers_slows_nothing() -> None:
    pace = found()
    for second in range(60, 160):
        pace.answered(100, 5.0, 500.0, 50, float(second))
        pace.refused(50, second + 0.5)
    assert pace.ceiling == math.inf and pace.factor == 1.0


def test_refusals_that_are_not_alone_cut_the_calls_under_way_once_in_their_time() -> None:
    pace = found()
    pace.refused(50, 60.0, 20)
    assert pace.ceiling == pytest.approx(CUT * 50)
    pace.refused(50, 60.1, 20)
    assert pace.ceiling == pytest.approx(CUT * 50), "these were sent before it was cut"
    pace.refused(45, 62.0, 20)
    assert pace.ceiling == pytest.approx(CUT * 45)
    assert pace.factor == 1.0


def test_a_long_wait_means_that_what_was_used_on_average_is_allowed() -> None:
    pace = found()
    until = pace.refused(50, 60.0, 20, hold=60.0)
    assert until == 120.0
    assert 20 < pace.ceiling < 25, "half of the time nothing may be asked"


def test_a_rate_is_cut_instead_if_there_is_one() -> None:
    pace = found(rates=True)
    pace.refused(50, 60.0, 20, hold=30.0)
    assert 0.6 < pace.factor < 0.7
    assert pace.ceiling == math.inf


def test_it_is_never_cut_to_nothing() -> None:
    calls, rates = found(), found(rates=True)
    for second in range(60, 600, 3):
        calls.refused(1, float(second), 20)
        rates.refused(1, float(second), 20)
    assert calls.ceiling == 1.0
    assert rates.factor == LEAST_FACTOR


def test_it_grows_while_it_is_reached_the_faster_the_longer_nothing_is_refused() -> None:
    pace = found()
    pace.refused(50, 60.0, 20)
    ceilings = []
    for second in range(60, 240):
        pace.pass_time(math.floor(pace.ceiling), float(second))
        ceilings.append(pace.ceiling)
    assert ceilings[10] < 1.02 * ceilings[0]
    assert ceilings[60] - ceilings[0] < ceilings[120] - ceilings[60] < ceilings[179] - ceilings[120]
    assert ceilings[179] > 2 * ceilings[0]


def test_it_does_not_grow_where_it_is_not_reached_and_is_free_again_after_a_while() -> None:
    pace = found()
    pace.refused(50, 60.0, 20)
    cut = pace.ceiling
    pace.pass_time(5, 60.0 + FREE_AFTER_SECONDS)
    assert pace.ceiling == cut
    pace.pass_time(5, 62.0 + FREE_AFTER_SECONDS)
    assert pace.ceiling == math.inf


def test_a_cut_rate_grows_back_to_all_of_it() -> None:
    pace = found(rates=True)
    pace.refused(50, 60.0, 20, hold=30.0)
    for second in range(90, 400):
        pace.pass_time(50, float(second))
    assert pace.factor == 1.0


def test_refused_right_after_a_wait_the_next_one_is_longer() -> None:
    pace = found()
    more, now = [], 60.0
    for _ in range(5):
        until = pace.refused(50, now, 20, hold=1.0)
        more.append(until - now - 1.0)
        now = until + 0.1
    assert more == pytest.approx([0.0, 0.5, 1.0, 2.0, 4.0])
    assert pace.refused(50, now + 60.0, 20, hold=1.0) - now - 60.0 == pytest.approx(1.0)


def test_a_provider_that_gets_slow_is_given_less_but_only_while_that_may_help() -> None:
    pace = found(watch_slowness=True)
    for second in range(60, 360):
        pace.answered(50, 400.0, 5_000.0, 50, float(second))
    assert pace.ceiling < 50
    assert pace.ceiling > 10


def test_long_replies_are_not_slow_ones() -> None:
    pace = found(watch_slowness=True)
    for second in range(60, 360):
        pace.answered(50, 1_000.0, 100_000.0, 50, float(second))
    assert pace.ceiling == math.inf
