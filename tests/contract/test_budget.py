"""A budget is not overrun, and what is used is counted once: by calls, by sessions, and through a crash."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from provider import counts, dialogues, provider, stats, tokens

from peerloom.sink.read import read_rows
from peerloom.sink.rundir.ledger import read_ledger

ROLES = ("solver", "critic", "judge")
LAWS = {"latency": 0.02, "latency_sigma": 0.5, "tokens": 100, "tokens_sigma": 1.0}


def run(url: str, run_dir: Path, engine: str, tasks: int, **config: Any) -> Any:
    return dialogues(url, run_dir, engine, tasks, in_flight=32, **config)


def check_rows(run_dir: Path, tasks: int, url: str) -> None:
    """Each row is there once, and each reply was paid once."""
    rows = list(read_rows(run_dir))
    assert len({row["id"] for row in rows}) == len(rows) == tasks
    assert sum(row["usage"]["calls"] for row in rows) == stats(url)["served"]


@pytest.mark.slow
def test_200_000_tokens(engine: str, tmp_path: Path) -> None:
    tasks = 300
    with provider(**LAWS) as url:
        first = run(url, tmp_path / "run", engine, tasks, **{"budget.tokens": 200_000})
        used = tokens(url)
        assert first.how == "suspended"
        assert 180_000 < used <= 220_000
        assert first.summary["budget"]["tokens"] == {"total": 200_000, "used": used}
        assert 0 < first.summary["suspended"] <= 32
        rows = list(read_rows(tmp_path / "run"))
        assert sum(row["usage"]["calls"] for row in rows) < stats(url)["served"], "some are in mid-dialogue"

        again = run(url, tmp_path / "run", engine, tasks, **{"budget.tokens": 10_000_000})
        assert again.how == "finished"
        assert again.summary["outcomes"] == {"completed": tasks}
        assert again.summary["budget"]["tokens"]["used"] == tokens(url) > 220_000
        check_rows(tmp_path / "run", tasks, url)


@pytest.mark.slow
def test_calls(tmp_path: Path) -> None:
    with provider(**LAWS) as url:
        first = run(url, tmp_path / "run", "local", 40, **{"budget.calls": 50})
        assert first.how == "suspended"
        assert first.summary["budget"]["calls"] == {"total": 50, "used": stats(url)["served"]}
        assert 40 <= stats(url)["served"] <= 50
        assert run(url, tmp_path / "run", "local", 40, **{"budget.calls": 1_000}).how == "finished"
        check_rows(tmp_path / "run", 40, url)


@pytest.mark.slow
def test_dollars(tmp_path: Path) -> None:
    prices = {"prices": {"simulated": {"prompt": 20, "completion": 50}}}
    with provider(**LAWS) as url:
        first = run(url, tmp_path / "run", "local", 60, **prices, **{"budget.usd": 0.5})
        used, counted = first.summary["budget"]["usd"]["used"], stats(url)["tokens"]
        assert first.how == "suspended"
        assert used == pytest.approx((20 * counted["prompt"] + 50 * counted["completion"]) / 1e6, abs=2e-6)
        assert 0.3 <= used <= 0.55
        again = run(url, tmp_path / "run", "local", 60, **prices, **{"budget.usd": 100})
        assert again.how == "finished"
        assert again.summary["budget"]["usd"]["used"] == pytest.approx(again.summary["usd"], abs=2e-6)
        check_rows(tmp_path / "run", 60, url)


@pytest.mark.slow
def test_minutes(tmp_path: Path) -> None:
    with provider(**{**LAWS, "latency": 0.2}) as url:
        first = run(url, tmp_path / "run", "local", 150, **{"budget.minutes": 0.03})
        assert first.how == "suspended"
        assert first.summary["suspended"] > 0
        assert run(url, tmp_path / "run", "local", 150, **{"budget.minutes": 10}).how == "finished"
        check_rows(tmp_path / "run", 150, url)


KILLED = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_budget import run
run(sys.argv[2], Path(sys.argv[3]), "local", 300, **{"budget.tokens": 10_000_000})
"""


@pytest.mark.slow
@pytest.mark.chaos
def test_a_killed_run_has_never_used_less_than_it_was(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    held = []
    with provider(**LAWS) as url:
        for _ in range(2):
            before = stats(url)["served"]
            command = [sys.executable, "-c", KILLED, os.path.dirname(__file__), url, str(run_dir)]
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
                while True:
                    if counts(url)["served"] > before + 200:
                        break
                    assert running.poll() is None
                    time.sleep(0.02)
                running.send_signal(signal.SIGKILL)
            entry = read_ledger(run_dir)
            assert entry is not None
            settled, truth = entry.used["tokens"] + entry.held["tokens"], tokens(url)
            assert settled >= truth
            held.append(settled - truth)
        done = run(url, run_dir, "local", 300, **{"budget.tokens": 10_000_000})
        assert done.how == "finished"
        used = done.summary["budget"]["tokens"]["used"]
        assert 0 <= used - tokens(url) <= held[-1] + 1
        assert len(list(read_rows(run_dir))) == 300
