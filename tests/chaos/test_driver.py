"""The driver is interrupted or killed: what is committed is consistent, and no process outlives it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from peerloom.sink.read import read_rows

pytestmark = [pytest.mark.chaos, pytest.mark.slow]


@contextmanager
def running(run_dir: Path, *overrides: str) -> Iterator[subprocess.Popen[bytes]]:
    """`peerloom run`, as a terminal starts it: with a process group of its own."""
    command = [
        sys.executable,
        "-m",
        "peerloom",
        "run",
        "coral",
        "llm=simulated",
        "llm.latency=0.2",
        *overrides,
    ]
    with subprocess.Popen([*command, "--run-dir", str(run_dir)], process_group=0) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_rows(run_dir: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while not any(part.stat().st_size for part in run_dir.glob("data/part-*.jsonl")):
        assert process.poll() is None, "the run ended before a row was committed"
        assert time.monotonic() < deadline, "no row was committed"
        time.sleep(0.05)


@pytest.mark.parametrize("engine", ["local", "ray"])
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_leaves_a_consistent_run_directory(engine: str, times: int, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with running(run_dir, f"engine={engine}", "trials=100", "in_flight=20") as process:
        wait_for_rows(run_dir, process)
        for _ in range(times):
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.3)
        assert process.wait(30) == 130
    summary = json.loads((run_dir / "summary.json").read_text())
    parts = [part.read_text() for part in run_dir.glob("*/part-*.jsonl")]
    ids = [json.loads(line)["id"] for part in parts for line in part.splitlines()]
    assert len(set(ids)) == len(ids) == summary["admitted"] == sum(summary["outcomes"].values())
    assert 0 < len(ids) < 5_200


def test_nothing_outlives_a_killed_driver(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with running(run_dir, "engine=ray", "trials=100") as process:
        wait_for_rows(run_dir, process)
        children = psutil.Process(process.pid).children(recursive=True)
        assert any("MemberActor" in " ".join(child.cmdline()) for child in children)
        process.kill()
        _, alive = psutil.wait_procs(children, timeout=15)
    assert not [child for child in alive if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


def test_a_driver_that_was_stopped_suspects_nobody(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    Deadline = ("heartbeat_seconds=0.001", "suspect_seconds=2", "deliver_seconds=2")  # a ping is always out
    with running(run_dir, "engine=ray", "trials=5", "in_flight=20", *Deadline) as process:
        wait_for_rows(run_dir, process)
        process.send_signal(signal.SIGSTOP)
        time.sleep(5)
        process.send_signal(signal.SIGCONT)
        assert process.wait(90) == 0
    log = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    assert not [line for line in log if line["event"] == "member_lost"]
    parts = [part.read_text() for part in run_dir.glob("*/part-*.jsonl")]
    ids = [json.loads(line)["id"] for part in parts for line in part.splitlines()]
    assert len(set(ids)) == len(ids) == json.loads((run_dir / "summary.json").read_text())["admitted"]


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_run_whose_driver_is_killed_is_resumed(engine: str, tmp_path: Path) -> None:
    """At once, so that processes of the killed session are still there and still writing."""
    run_dir = tmp_path / "run"
    with running(run_dir, f"engine={engine}", "trials=20", "in_flight=40", "shards=2") as process:
        wait_for_rows(run_dir, process)
        while not (kept := {row["id"]: row for row in read_rows(run_dir)}):
            time.sleep(0.05)
        process.kill()
    resume = [sys.executable, "-m", "peerloom", "resume", str(run_dir), "llm.latency=0", "--json", "-q"]
    ended = subprocess.run(resume, capture_output=True, check=True, timeout=90)
    summary = json.loads(ended.stdout)
    parts = [part.read_bytes() for part in run_dir.glob("*/part-*.jsonl")]
    lines = [line for part in parts for line in part.splitlines()]
    after = {row["id"]: row for row in read_rows(run_dir)}
    assert len(after) == len(lines) == summary["admitted"] == sum(summary["outcomes"].values()) == 1_040
    assert {id: after[id] for id in kept} == kept
    assert summary["sessions"] == 2
    assert not list((run_dir / ".peerloom/journal").iterdir())
