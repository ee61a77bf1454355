"""The rows of mini-coral: which peers the short run takes, and whom the paper's row is compared with."""

import pytest

from benchmarks.comparison.case import Found, Outcome
from benchmarks.comparison.cases import calls
from benchmarks.comparison.sides import Scope


def systems(scope: Scope, case: str) -> dict[str, str]:
    """The sides of a case, each with why it is left out."""
    (found,) = [each for each in calls.cases(scope) if case in each.name]
    return {side.system: side.cannot for side in found.sides}


def test_the_short_run_takes_the_loop_and_whoever_is_named() -> None:
    assert list(systems(Scope(quick=True), " 1,000 in flight")) == ["peerloom", "aiohttp"]
    named = Scope(quick=True, peers=frozenset({"langgraph"}))
    assert "not asked for" not in systems(named, " 1,000 in flight")["langgraph"]
    assert systems(named, " 1,000 in flight")["curator"] == "not asked for"


def test_those_that_make_some_hundred_calls_a_second_are_measured_once_for_a_minute() -> None:
    (case,) = [each for each in calls.cases(Scope()) if " 5,000 in flight" in each.name]
    once = {side.system for side in case.sides if side.once}
    assert {"openai", "langgraph"} <= once
    assert not once & {"peerloom", "aiohttp", "raydata"}


def central(**measured: float) -> str:
    """Whom the paper's row is compared with, of those with these tokens a second."""
    (case,) = [each for each in calls.cases(Scope()) if "1,000 in flight, latency 0.5" in each.name]
    outcome: Outcome = {"peerloom": Found([{"tokens_per_second": 10.0}]), "openai": Found(reason="absent")}
    outcome |= {name: Found([{"tokens_per_second": rate}]) for name, rate in measured.items()}
    (row,) = [row for row in case.rows(outcome) if row.figure.startswith("paper")]
    assert row.ratio == pytest.approx(10.0)
    return row.peer


def test_the_central_loop_is_that_of_the_openai_client_if_it_was_measured() -> None:
    assert central(openai=1.0, aiohttp=5.0) == "openai"
    assert central(aiohttp=1.0) == "aiohttp"
