"""Ten thousand calls, a hundred of each fault there is among them: no task is lost, no reply paid twice."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

import peerloom
from peerloom.agents.llm import LLMAgent
from peerloom.sink.read import read_rows
from peerloom.workflow import Sequence

TASKS, CALLS = 2_000, 5
FAULTS = ("429", "5xx", "hang", "garbage", "truncation", "half_closed", "slow", "cut", "content_type")
RETRIED = [fault for fault in FAULTS if fault not in ("truncation", "slow")]
LAWS = {
    "latency": 0.02,
    "latency_sigma": 0.5,
    "tokens": 40,
    "retry_after": 0.2,
    "slow_seconds": 0.3,
    **{f"rate_{fault}": 0.01 for fault in FAULTS},
}


@pytest.fixture
def hostile() -> Iterator[str]:
    """The address of such a provider, a process of its own."""
    options = [f"--{name.replace('_', '-')}={value}" for name, value in LAWS.items()]
    command = [sys.executable, "-m", "peerloom", "simulate-llm", "--port=0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().split(" at ")[1].split("/v1")[0]
        finally:
            server.terminate()


def stats(url: str) -> dict[str, Any]:
    with urlopen(f"{url}/stats") as answer:
        return json.load(answer)


def quiet(url: str) -> dict[str, Any]:
    """The provider's counts once it has noticed that its clients are gone."""
    for _ in range(100):
        counts = stats(url)
        if not counts["open_connections"]:
            break
        time.sleep(0.02)
    return counts


@pytest.mark.slow
def test_every_task_ends_in_a_row_and_nothing_outlives_it(hostile: str, tmp_path: Path) -> None:
    roles = [f"speaker{number}" for number in range(CALLS)]
    result = peerloom.run(
        workflow=Sequence(*roles),
        agents={role: LLMAgent(opening="Topic {{ input.n }}", dialogue=True) for role in roles},
        source=[{"n": number} for number in range(TASKS)],
        llm="openai",
        engine="local",
        in_flight=400,
        config={"llm.base_url": f"{hostile}/v1", "llm.timeout": 3.0},
        run_dir=tmp_path / "run",
        progress=False,
    )
    rows = list(read_rows(tmp_path / "run"))
    counts = quiet(hostile)
    assert result.how == "finished"
    assert len({row["id"] for row in rows}) == len(rows) == TASKS

    cut = counts["faults"]["truncation"]
    assert Counter((row["outcome"], row["reason"]) for row in rows) == {
        ("completed", ""): TASKS - cut,
        ("truncated", "max_tokens"): cut,
    }
    assert {row["timing"]["hops"] for row in rows if row["outcome"] == "completed"} == {CALLS}

    counted = sum(row["usage"]["calls"] for row in rows)
    assert counted == counts["served"], "each reply was paid once, and is in a row"
    assert counted > 0.9 * TASKS * CALLS
    for kind in ("prompt", "completion", "cached"):
        assert sum(row["usage"][kind] for row in rows) == counts["tokens"][kind]
    assert all(counted * 0.005 < counts["faults"][fault] < counted * 0.02 for fault in FAULTS), counts

    assert counts["left"] == counts["faults"]["hang"], "no request but one that hangs is given up"
    assert (counts["in_flight"], counts["running"], counts["open_connections"]) == (0, 0, 0)
