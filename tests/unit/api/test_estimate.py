import random
from dataclasses import replace
from pathlib import Path

import pytest

from peerloom.api import drive, make_plan
from peerloom.api.estimate import RunShape, Work, predict, work_of
from peerloom.api.pilot import forecast
from peerloom.errors import ConfigError
from peerloom.runtime.services import RunServices
from peerloom.services.llm.limits.service_quota import Limits
from peerloom.services.llm.simulated.service import SimulatedService
from peerloom.sink.read import read_rows

KEYS = (
    "engine=local",
    "llm=simulated",
    "llm.latency=0.02",
    "in_flight=8",
    "prices={simulated: {prompt: 1, completion: 2}}",
)


def lognormal(count: int, seed: int) -> list[Work]:
    draw = random.Random(seed).lognormvariate
    return [Work(draw(6, 0.5), draw(5, 0.7), 0.0, 3.0, draw(-3, 0.6), draw(0, 0.5)) for _ in range(count)]


def test_equal_tasks_leave_no_doubt() -> None:
    pilot = [Work(100.0, 50.0, 10.0, 2.0, 0.25, 3.0)] * 10
    found = predict(pilot, RunShape(tasks=1_000, in_flight=10, start_seconds=5.0))
    expected = {"prompt": 100_000, "completion": 50_000, "cached": 10_000, "calls": 2_000, "usd": 250.0}
    for name, total in expected.items():
        assert found[name] == pytest.approx((total, total, total))
    assert found["seconds"] == pytest.approx((305.0, 305.0, 305.0))


def test_the_pilots_own_tasks_are_known() -> None:
    pilot = lognormal(10, 1)
    found = predict(pilot, RunShape(tasks=10, in_flight=10))
    for name in ("prompt", "completion", "calls", "usd"):
        total = sum(getattr(work, name) for work in pilot)
        assert found[name] == pytest.approx((total, total, total))
    longest = max(work.seconds for work in pilot)
    assert found["seconds"] == pytest.approx((longest, longest, longest))


@pytest.mark.slow
def test_nine_of_ten_intervals_hold_what_comes() -> None:
    tasks, tries = 2_000, 30
    held = dict.fromkeys(("prompt", "completion", "usd"), 0)
    for number in range(tries):
        population = lognormal(tasks, number)
        found = predict(population[:20], RunShape(tasks=tasks, in_flight=64), seed=number)
        for name in held:
            held[name] += (
                found[name].low <= sum(getattr(work, name) for work in population) <= found[name].high
            )
    assert all(0.75 * tries <= count < tries for count in held.values()), held


def test_a_larger_pilot_knows_better() -> None:
    widths = []
    for count in (5, 20, 200):
        found = predict(lognormal(count, 7), RunShape(tasks=10_000, in_flight=64))["prompt"]
        widths.append((found.high - found.low) / found.expected)
    assert widths[0] > 1.5 * widths[1] > 3.0 * widths[2]


def test_time_is_work_divided_by_places_and_the_longest_task_at_least() -> None:
    pilot = [Work(seconds=seconds) for seconds in (1.0, 1.0, 1.0, 5.0)]
    wide = predict(pilot, RunShape(tasks=4, in_flight=100))["seconds"]
    assert wide == (5.0, 5.0, 5.0)
    narrow = predict(pilot, RunShape(tasks=100_000, in_flight=10))["seconds"]
    assert narrow.low < 20_000 < narrow.high


@pytest.mark.parametrize("tasks", [900, 1_100])
def test_a_schedule_that_is_played_and_one_that_is_reckoned_agree(tasks: int) -> None:
    found = predict(lognormal(50, 3), RunShape(tasks=tasks, in_flight=20))["seconds"]
    mean = sum(work.seconds for work in lognormal(50, 3)) / 50
    assert found.expected == pytest.approx(mean * tasks / 20, rel=0.08)


def test_limits_are_bounds() -> None:
    pilot = [Work(prompt=900.0, completion=100.0, calls=2.0, seconds=0.1)] * 10
    by_calls = predict(pilot, RunShape(tasks=600, in_flight=600, calls_per_minute=60.0))
    by_tokens = predict(pilot, RunShape(tasks=600, in_flight=600, tokens_per_minute=10_000.0))
    assert by_calls["seconds"].expected == pytest.approx(1_200.0)
    assert by_tokens["seconds"].expected == pytest.approx(3_600.0)


def test_one_task_says_nothing_of_others() -> None:
    with pytest.raises(ValueError, match="1 tasks say nothing"):
        predict([Work()], RunShape(tasks=2, in_flight=1))
    assert predict([Work(prompt=3.0)], RunShape(tasks=1, in_flight=1))["prompt"] == (3.0, 3.0, 3.0)


def test_it_is_the_same_again() -> None:
    pilot, shape = lognormal(20, 1), RunShape(tasks=500, in_flight=8)
    assert predict(pilot, shape, seed=1) == predict(pilot, shape, seed=1) != predict(pilot, shape, seed=2)


@pytest.mark.slow
def test_what_a_whole_run_comes_to_was_foretold(tmp_path: Path) -> None:
    held: list[bool] = []
    for seed in range(4):
        plan = make_plan("coral", (*KEYS, f"seed={seed}"))
        found = forecast(plan, 20, progress=False)
        assert (found.rows, found.tasks, found.sampled, found.priced) == (52, 52, 20, True)
        summary = drive(plan, run_dir=tmp_path / f"run-{seed}", progress=False).summary
        actual = {**summary["tokens"], "calls": summary["llm_calls"], "usd": summary["usd"]}
        held += [found.estimate[name].low <= actual[name] <= found.estimate[name].high for name in actual]
        assert found.estimate["seconds"].low < 2 * summary["wall_seconds"]
        assert found.estimate["seconds"].high > 0.5 * summary["wall_seconds"]
    assert sum(held) >= 0.7 * len(held)  # of nine in ten; the figures of a run are right or wrong together


def test_a_pilot_does_what_the_run_does_with_those_rows(tmp_path: Path) -> None:
    forecast(make_plan("coral", KEYS), 5, tmp_path / "pilot", progress=False)
    drive(make_plan("coral", KEYS), run_dir=tmp_path / "run", progress=False)
    whole = {row["id"]: row["messages"] for row in read_rows(tmp_path / "run")}
    sampled = list(read_rows(tmp_path / "pilot"))
    assert [whole[row["id"]] for row in sampled] == [row["messages"] for row in sampled]
    assert work_of(sampled[0]).calls == sampled[0]["usage"]["calls"] > 0


def test_trials_are_more_tasks_of_the_same_rows() -> None:
    found = forecast(make_plan("coral", (*KEYS, "trials=3", "limit=10")), 5, progress=False)
    assert (found.rows, found.tasks, found.sampled) == (10, 30, 5)


def test_a_kept_pilot_is_not_run_again(tmp_path: Path) -> None:
    first = forecast(make_plan("coral", KEYS), 5, tmp_path / "pilot", progress=False)
    again = forecast(make_plan("coral", KEYS), 5, tmp_path / "pilot", progress=False)
    assert again.summary["sessions"] == 1
    assert again.estimate["usd"] == first.estimate["usd"]


def test_the_run_takes_what_the_pilot_was_answered_from_the_cache(tmp_path: Path) -> None:
    keys = (*KEYS, f"cache.path={tmp_path / 'cache.db'}", "limit=6")
    first = forecast(make_plan("coral", keys), 6, progress=False)
    again = forecast(make_plan("coral", keys), 6, progress=False)
    assert again.estimate["prompt"] == first.estimate["prompt"]  # it measures the model, not the cache
    cache = drive(make_plan("coral", keys), run_dir=tmp_path / "run", progress=False).summary["cache"]
    assert cache["hits"] > 0


def test_limits_of_the_service_are_heeded(tmp_path: Path) -> None:
    class Limited(SimulatedService):
        def spec(self):
            return replace(super().spec(), limits=Limits(requests_per_minute=6_000, adaptive=False))

    plan = replace(make_plan("coral", (*KEYS, "trials=100")), services=RunServices(Limited()))
    found = forecast(plan, 10, progress=False)
    assert found.estimate["seconds"].low >= 0.99 * found.estimate["calls"].low / 100


def test_a_source_of_one_row_and_many_trials(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="1 tasks say nothing"):
        forecast(make_plan("coral", (*KEYS, "limit=1", "trials=2")), 5, progress=False)
