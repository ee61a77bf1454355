import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main as benchmark
from benchmarks.harness.points import BenchError
from benchmarks.harness.simulated_llm import Asked
from benchmarks.standalone import limits
from benchmarks.standalone.limits import main, measure
from benchmarks.standalone.refusals import NEVER, RANDOM, REPRESENTATIVE, SHORT_WINDOW, Case, Rule, chosen
from peerloom.errors import ConfigError
from peerloom.services.llm.simulated.behavior import SimulatedBehavior
from peerloom.services.llm.simulated.server.app import ServerConfig, serving

SECONDS = {NEVER: 2.0, RANDOM[0.05]: 6.0, SHORT_WINDOW: 12.0}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Case, int, bool]]:
    """Measurements that take no time; what was measured."""
    done: list[tuple[Case, int, bool]] = []

    async def measure(case: Case, seed: int, tasks: int, *, plainly: bool) -> Asked:
        done.append((case, seed, plainly))
        if case.peers == 8:
            raise BenchError("it broke")
        served, refused = 6 * tasks, 0 if case.rule is NEVER else 6 * tasks // (4 if plainly else 2)
        return Asked(4.0 if plainly else SECONDS[case.rule] * seed, served + refused, served, refused)

    monkeypatch.setattr(limits, "measure", measure)
    return done


def lines(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_times_are_those_of_the_longest_that_they_are_compared_with(
    measured: list[tuple[Case, int, bool]], capfd: pytest.CaptureFixture[str]
) -> None:
    main(only="5% at random, Retry-After: none, local, 2", json=True)
    main(only="60 in 2 s, Retry-After: none, local", json=True)
    point, window = lines(capfd.readouterr().out)
    assert point == {
        "bench": "limits",
        "refusals": "5% at random",
        "retry_after_as": "none",
        "engine": "local",
        "peers": 2,
        "calls": 240,
        "seconds": 6.0,
        "unrefused_seconds": 2.0,
        "ideal_seconds": 2.0,
        "plain_seconds": 4.0,
        "times": 1.5,
        "share_refused": 0.3333,
        "plain_share_refused": 0.2,
        "allowance_used": None,
    }
    assert window["ideal_seconds"] == 6.1  # 240 calls, 60 in each window of 2 s, the first at once
    assert window["times"] == pytest.approx(12.0 / 6.1, abs=1e-3)
    assert window["allowance_used"] == pytest.approx(240 / (60 * (1 + 12.0 / 2)), abs=1e-4)


def test_medians_are_taken_and_what_cases_share_is_measured_once(
    measured: list[tuple[Case, int, bool]], capfd: pytest.CaptureFixture[str]
) -> None:
    main(only="60 in 2 s", engine="local", peers=2, tasks=2, runs=3, json=True)
    none, seconds = lines(capfd.readouterr().out)
    assert (none["retry_after_as"], seconds["retry_after_as"]) == ("none", "seconds")
    assert (none["calls"], none["seconds"], none["unrefused_seconds"]) == (12, 24.0, 4.0)
    assert len(measured) == 3 * (1 + 2 + 2)
    assert [(case.rule, plainly) for case, seed, plainly in measured if seed == 2] == [
        (NEVER, False),
        *[(SHORT_WINDOW, True), (SHORT_WINDOW, False)] * 2,
    ]


def test_people_get_a_table_and_hear_of_cases_that_broke(
    measured: list[tuple[Case, int, bool]], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BenchError, match="1 of 4 cases could not be measured"):
        main(only="5% at random, Retry-After: none, local")
    told = capfd.readouterr()
    assert "local, 8 peers: it broke" in " ".join(told.err.split())
    assert "1.50" in told.out and "33%" in told.out


def test_all_cases_are_every_rule_header_engine_and_number_of_peers() -> None:
    cases = chosen(everything=True)
    assert len(cases) == len(set(cases)) == 10 * 6 * 2 * 4
    assert set(REPRESENTATIVE) <= set(cases)
    assert len(chosen(everything=True, engine="ray", peers=4)) == 10 * 6
    assert {(case.engine, case.peers) for case in chosen(engine="ray", peers=4)} == {("ray", 4)}
    with pytest.raises(ConfigError, match="no case has 'at rendom' in its name; one is '1% at random, "):
        chosen(only="at rendom")


@pytest.mark.parametrize("plainly", [False, True])
async def test_calls_are_counted_by_the_server_until_all_are_answered(
    plainly: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is in this process, and asks for hardly any wait."""

    @asynccontextmanager
    async def simulated_llm(log: Path, *, latency: float, **behavior: Any) -> AsyncIterator[tuple[str, int]]:
        async with serving(
            ServerConfig(behavior=SimulatedBehavior(**behavior, tokens_sigma=0), port=0, log=log)
        ) as port:
            yield f"http://127.0.0.1:{port}/v1", 0

    monkeypatch.setattr(limits, "simulated_llm", simulated_llm)
    monkeypatch.setitem(limits.RETRY_AFTER, "fraction", 0.001)
    monkeypatch.chdir(tmp_path)
    seen = await measure(Case(Rule("some", rate_429=0.3), "fraction"), 1, 2, plainly=plainly)
    assert seen.served == 12
    assert seen.refused > 0
    assert seen.attempts == seen.served + seen.refused
    assert seen.seconds > 0


def test_the_command_line_has_it_and_refuses_what_is_for_others(
    measured: list[tuple[Case, int, bool]], capfd: pytest.CaptureFixture[str]
) -> None:
    benchmark("limits", only="60 in 2 s", engine="ray", peers=1, as_json=True)
    assert [(each["engine"], each["peers"]) for each in lines(capfd.readouterr().out)] == [("ray", 1)] * 2
    with pytest.raises(ConfigError, match="--in-flight is not for limits"):
        benchmark("limits", in_flight=3)
    with pytest.raises(ConfigError, match="--engine is not for hops but for limits"):
        benchmark("hops", engine="ray")
    with pytest.raises(ConfigError, match="--only is not for hops but for all and limits"):
        benchmark("hops", only="x")
