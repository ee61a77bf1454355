import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from peerloom.control.client import TOKEN_VARIABLE, find
from peerloom.sink.rundir.directory import RunDir
from peerloom.sink.rundir.state import Fingerprint, State

pytestmark = pytest.mark.slow


@pytest.fixture
def started(tmp_path: Path) -> Iterator[tuple[Path, "subprocess.Popen[str]"]]:
    """A run in a process of its own; it would take long."""
    run_dir = tmp_path / "run"
    given = ["engine=local", "llm=simulated", "llm.latency=0.05", "trials=1000", "in_flight=4", "journal=off"]
    command = [sys.executable, "-m", "peerloom", "run", "coral", *given, "--run-dir", str(run_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        while not any(part.stat().st_size for part in run_dir.glob("data/part-*")):
            assert run.poll() is None
            time.sleep(0.01)
        yield run_dir, run
        run.kill()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_run_is_steered_from_another_process(peerloom, started, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir, run = started

    def status() -> dict[str, Any]:
        return json.loads(peerloom("ctl", "status", run_dir, "--json").out)

    assert peerloom("ctl", "pause", run_dir).out == "paused; running turns finish\n"
    until(lambda: status()["turns"] == 0)
    shown = peerloom("ctl", "status", run_dir).out
    assert "paused: requested by peerloom ctl" in shown
    assert "in_flight=4" in shown
    assert "peer-0.1 (process" in shown
    before = status()["committed"]
    assert json.loads(peerloom("ctl", "set", "in_flight=8", run_dir, "--json").out)["state"] == "paused"
    assert status()["committed"] == before

    channel = find(run_dir)
    monkeypatch.setenv(TOKEN_VARIABLE, channel.token.reveal())
    assert peerloom("ctl", "continue", "--address", channel.address).out == "continuing\n"
    until(lambda: status()["in_flight"] == 8)
    refused = peerloom("ctl", "set", "limit=3", run_dir)
    assert refused.code == 2
    assert "limit cannot be set while the run goes on: only in_flight, " in refused.err

    assert peerloom("ctl", "drain", run_dir).code == 0
    _, err = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "paused: requested by peerloom ctl" in err
    assert "ctl drain from 127.0.0.1: finishing the tasks in flight" in err
    assert channel.token.reveal() not in err
    log = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    assert [line["level"] for line in log if "paused: requested" in line.get("text", "")] == ["warning"]
    ended = peerloom("ctl", "status", run_dir)
    assert (ended.code, ended.out.split()[:2]) == (0, ["state", "drained;"])
    late = peerloom("ctl", "pause", run_dir)
    assert late.code == 1
    assert f"resume it with `peerloom resume {run_dir}`" in late.err


def test_a_killed_run_is_not_running(peerloom, started) -> None:
    run_dir, run = started
    assert (run_dir / ".peerloom/control.json").exists()
    run.kill()
    run.wait()
    ended = peerloom("ctl", "status", run_dir)
    assert ended.code == 0
    assert f"not running; resume it with `peerloom resume {run_dir}`" in ended.out
    late = peerloom("ctl", "cancel", run_dir)
    assert late.code == 1
    assert late.err.startswith(f"error: the run in {run_dir} is not running; resume it with `peerloom resume")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["status"], "give either the run's directory or --address"),
        (["pause", "runs/x", "--address", "a:1"], "give either the run's directory or --address"),
        (["status", "runs/none"], "runs/none contains no run of Peerloom"),
        (["status", "--address", "a:1"], TOKEN_VARIABLE),
        (["set", "in_flight", "runs/x"], "in_flight: must be KEY=VALUE"),
    ],
)
def test_what_the_user_got_wrong(peerloom, arguments: list[str], message: str) -> None:
    ended = peerloom("ctl", *arguments)
    assert ended.code == 2
    assert message in ended.err


def test_a_run_that_is_over_tells_its_figures(peerloom, tmp_path: Path) -> None:
    run_dir = RunDir.claim(tmp_path / "run")
    run_dir.write_state(State(session=1, peerloom="0.1.0", how="finished", fingerprint=Fingerprint()))
    run_dir.write("summary.json", {"outcomes": {"completed": 3}})
    run_dir.release()
    shown = peerloom("ctl", "status", tmp_path / "run")
    assert shown.out.split() == ["state", "finished", "outcomes", "completed", "3"]
