import json
from pathlib import Path
from typing import Any

import pytest

LOCAL = ("engine=local", "llm=simulated", "limit=8")


@pytest.mark.parametrize("override", ["prices={m: {prompt: 1, completion: x}}", "prices=nowhere.yaml"])
def test_wrong_prices_never_start_a_run(peerloom: Any, tmp_path: Path, override: str) -> None:
    ended = peerloom("run", "coral", *LOCAL, override, "--run-dir", tmp_path / "run")
    assert ended.code == 2
    assert "prices" in ended.err and len(ended.err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def run(peerloom: Any, run_dir: Path, *keys: str, verb: str = "run") -> dict[str, Any]:
    start = ("run", "coral", *LOCAL) if verb == "run" else ("resume",)
    where = ("--run-dir", run_dir) if verb == "run" else (run_dir,)
    ended = peerloom(*start, *where, *keys, "--json", "-q")
    found = json.loads(ended.out)
    assert ended.code == {"finished": 0, "suspended": 3}[found["how"]], ended.err
    return found


def test_a_run_that_has_used_its_budget_goes_on_with_more(peerloom: Any, tmp_path: Path) -> None:
    first = run(peerloom, tmp_path / "run", "budget.calls=10")
    assert (first["how"], first["budget"]["calls"]["total"]) == ("suspended", 10)
    assert first["suspended"] + first["admitted"] <= 8
    again = run(peerloom, tmp_path / "run", "budget.calls=1000", verb="resume")
    assert (again["how"], again["outcomes"]) == ("finished", {"completed": 8})
    assert 10 < again["budget"]["calls"]["used"] == again["llm_calls"]


def test_a_resumed_run_may_be_given_a_budget_and_relieved_of_it(peerloom: Any, tmp_path: Path) -> None:
    run(peerloom, tmp_path / "run", "limit=2")
    bounded = run(peerloom, tmp_path / "run", "limit=8", "budget.calls=5", verb="resume")
    assert bounded["how"] == "suspended"
    free = run(peerloom, tmp_path / "run", "budget.calls=null", verb="resume")
    assert free["how"] == "finished"


def test_a_budget_in_dollars(peerloom: Any, tmp_path: Path) -> None:
    dear = "prices={simulated: {prompt: 1000, completion: 1000}}"
    found = run(peerloom, tmp_path / "run", dear, "budget.usd=1.5")
    assert found["how"] == "suspended"
    assert 0 < found["budget"]["usd"]["used"] <= 1.5


def test_the_summary_says_what_was_paid_and_what_the_cache_saved(peerloom: Any, tmp_path: Path) -> None:
    keys = ("prices={simulated: {prompt: 1, completion: 2}}", f"cache.path={tmp_path / 'cache.db'}")
    first = run(peerloom, tmp_path / "one", *keys)
    again = run(peerloom, tmp_path / "two", *keys)
    assert again["usd"] + again["cache"]["saved_usd"] == pytest.approx(first["usd"], abs=2e-6)
    assert again["llm_calls"] == again["cache"]["misses"] < first["llm_calls"]
    shown = peerloom("run", "coral", *LOCAL, *keys, "-q", "--run-dir", tmp_path / "three").out
    assert f"{again['cache']['hits']} of {first['llm_calls']} calls" in shown
    shown = peerloom("run", "coral", *LOCAL, keys[0], "-q", "--run-dir", tmp_path / "four").out
    assert f"cost         {first['usd']:.4f} USD" in shown


def test_a_cache_that_cannot_be_used_fails_nothing_and_is_told_of(peerloom: Any, tmp_path: Path) -> None:
    ended = peerloom("run", "coral", *LOCAL, f"cache.path={tmp_path}", "--run-dir", tmp_path / "run")
    assert ended.code == 0
    assert "completed 8" in ended.out
    told = " ".join(ended.err.split())
    assert told.count("cannot be used") == 2  # by each of two peers
