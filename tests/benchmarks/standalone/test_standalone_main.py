import json
from dataclasses import replace

import pytest

from benchmarks.harness.points import Bench, CallsPoint, Setting, Without
from benchmarks.standalone import main as module
from benchmarks.standalone.main import main
from peerloom.errors import ConfigError


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Setting]:
    """A benchmark that takes no time; the settings it was run with."""
    settings: list[Setting] = []

    async def run(setting: Setting) -> CallsPoint:
        settings.append(setting)
        calls = float(1_000 * len(settings))
        return CallsPoint(
            "quick",
            setting.placement,
            setting.in_flight,
            setting.tasks,
            setting.without,
            10.0,
            calls / 4,
            0.5,
            calls,
            0.9,
            0.1,
        )

    bench = Bench("quick", ("packed",), (10, 20), lambda in_flight: in_flight, 1, run)
    monkeypatch.setitem(module.BENCHES, "quick", bench)
    return settings


def test_json_is_one_line_for_each_setting_and_nothing_else(
    measured: list[Setting], capfd: pytest.CaptureFixture[str]
) -> None:
    main("quick", runs=3, json=True)
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [(line["in_flight"], line["calls_per_second"]) for line in lines] == [(10, 2_000.0), (20, 5_000.0)]
    assert list(lines[0])[-4:] == [
        "latency_seconds",
        "calls_per_second",
        "share_of_ideal",
        "cpu_seconds_per_1000_calls",
    ]
    assert len(measured) == 6


def test_people_get_a_table(measured: list[Setting], capfd: pytest.CaptureFixture[str]) -> None:
    main("quick", in_flight=30, tasks=5)
    out = capfd.readouterr().out
    assert "calls/s" in out
    assert "1,000" in out
    assert measured == [Setting("packed", 30, 5)]


def test_what_something_costs_is_measured_in_turn(
    measured: list[Setting], capfd: pytest.CaptureFixture[str]
) -> None:
    main("quick", in_flight=30, tasks=5, runs=3, without="journal", json=True)
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [setting.without for setting in measured] == [None, "journal"] * 3
    assert lines[1]["without"] == "journal"
    assert lines[2] == {
        "bench": "quick",
        "placement": "packed",
        "in_flight": 30,
        "compared_without": "journal",
        "ratio": 0.75,
    }


def test_the_table_says_what_something_costs(
    measured: list[Setting], capfd: pytest.CaptureFixture[str]
) -> None:
    main("quick", in_flight=30, tasks=5, without="heartbeats")
    assert "0.500 of the tasks/s without heartbeats" in capfd.readouterr().out


def test_an_unknown_benchmark_is_refused_with_those_there_are() -> None:
    with pytest.raises(
        ConfigError, match="no benchmark 'hop'; there are hops, calls, recovery, affinity, limits, offload"
    ):
        main("hop")


def test_recovery_without_a_journal_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing is recovered"):
        main("recovery", without="journal")


@pytest.mark.parametrize(("name", "without"), [("affinity", "journal"), ("calls", "affinity")])
def test_affinity_is_compared_in_its_own_benchmark_only(name: str, without: Without) -> None:
    with pytest.raises(ConfigError, match="affinity is a benchmark of its own"):
        main(name, without=without)


def test_what_a_benchmark_is_about_is_measured_without_it_in_turn(
    measured: list[Setting], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    about = replace(module.BENCHES["quick"], compared="affinity")
    monkeypatch.setitem(module.BENCHES, "quick", about)
    main("quick", in_flight=30, tasks=5, runs=2)
    assert [setting.without for setting in measured] == [None, "affinity"] * 2
    assert "of the tasks/s without affinity" in capfd.readouterr().out
