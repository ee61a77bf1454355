from dataclasses import replace

from benchmarks.harness.points import Bench, HopsPoint, Setting, middle

POINT = HopsPoint("hops", "spread", 100, 40, None, 9.4, 1.0, 123.456789)


async def run(_: Setting) -> HopsPoint:
    return POINT


BENCH = Bench("hops", ("spread", "packed"), (100, 1_000), lambda in_flight: 2 * in_flight, 3, run)


def test_a_benchmark_measures_all_its_settings_unless_told_otherwise() -> None:
    assert BENCH.settings() == [
        Setting("spread", 100, 200),
        Setting("spread", 1_000, 2_000),
        Setting("packed", 100, 200),
        Setting("packed", 1_000, 2_000),
    ]


def test_what_was_asked_for_narrows_it() -> None:
    assert BENCH.settings(in_flight=7, tasks=50, placement="packed") == [Setting("packed", 7, 50)]


def test_the_median_is_taken_figure_by_figure() -> None:
    points = [
        replace(POINT, tasks_per_second=1.0, hops_per_second=30.0),
        replace(POINT, tasks_per_second=9.0, hops_per_second=10.0),
        replace(POINT, tasks_per_second=3.0, hops_per_second=20.0),
    ]
    assert middle(points) == replace(POINT, tasks_per_second=3.0, hops_per_second=20.0)


def test_a_point_as_json_has_the_documented_keys() -> None:
    assert POINT.as_json() == {
        "bench": "hops",
        "placement": "spread",
        "in_flight": 100,
        "tasks": 40,
        "hops_per_task": 9.4,
        "tasks_per_second": 1.0,
        "hops_per_second": 123.46,
    }
