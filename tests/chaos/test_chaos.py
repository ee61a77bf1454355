"""Whole runs under chaos: processes killed and stopped at random, a second host, a full disk, power loss."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import checker
import pytest
from chaos_faults import HOST_KILLS, KILLS, STOPS, kill_everything, plan
from chaos_hosts import TwoHosts
from chaos_stage import HERE, Shape, Stage, environment
from chaos_workload import STEPS

chaos = pytest.mark.chaos
slow = pytest.mark.slow


def perform(*command: str | Path, seconds: float = 600.0) -> dict[str, Any]:
    """Run a script of the suite; its verdict."""
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
    verdict = json.loads(done.stdout.splitlines()[-1])
    assert (verdict["lost"], verdict["duplicated"], verdict["calls_repaid"]) == (0, 0, 0)
    assert verdict["rows"] == verdict["admitted"] == sum(verdict["outcomes"].values())
    return verdict


@chaos
@slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("placement", "kills"), [("spread", 7)])
def test_nothing_is_lost_and_nothing_paid_twice(placement: str, kills: int, tmp_path: Path) -> None:
    script = (sys.executable, HERE / "chaos.py", "--placement", placement, "--dir", tmp_path / "chaos")
    verdict = perform(*script, "--kills", str(kills), "--stops", "3", "--seed", "4", "--latency", "0.2")
    struck = verdict["kills"]
    assert sum(count for kind, count in struck.items() if not kind.startswith("stop-")) == kills
    assert set(KILLS) < struck.keys()
    assert verdict["outcomes"] == {"completed": verdict["admitted"]}


@chaos
@slow
@pytest.mark.timeout(600)
def test_a_second_host_is_cut_off_and_goes_down(tmp_path: Path) -> None:
    if why := TwoHosts.missing():
        pytest.skip(f"no network namespaces here: {why}")
    script = (sys.executable, HERE / "chaos.py", "--hosts", "2", "--dir", tmp_path / "chaos")
    kinds = "host,cut-short,cut-long"
    verdict = perform(*script, "--kills", "3", "--only", kinds, "--stops", "0", "--tasks", "240")
    assert set(verdict["kills"]) == set(kinds.split(","))


@chaos
@slow
@pytest.mark.timeout(600)
def test_a_full_disk_is_waited_out(tmp_path: Path) -> None:
    mounts = ("unshare", "--mount")
    if shutil.which("unshare") is None:
        pytest.skip("no command unshare, to mount a small disk")
    tried = subprocess.run([*mounts, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no mounts of its own here: {tried.stderr.strip()}")
    verdict = perform(*mounts, sys.executable, HERE / "chaos_disk.py", tmp_path / "full")
    assert verdict["stood_still"]
    assert verdict["grown_mib"] < 32
    assert any("No space left on device" in text for text in verdict["said"])
    assert any("continuing" in text for text in verdict["said_later"])


@chaos
@slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1])
def test_after_a_power_loss_the_journal_costs_what_was_damaged(seed: int, tmp_path: Path) -> None:
    """The page cache is lost: tails of the journal are gone or zero, bytes are flipped. Rows are synced."""
    rng = Random(seed)
    with Stage(tmp_path, Shape(tasks=240, placement="packed", partitions=1)) as stage:
        stage.run()
        stage.wait_for_rows(80)
        kill_everything(stage)
        damaged = damage(stage.run_dir, rng)
        stage.resume()
        stage.finish()
    verdict = checker.judge(stage.run_dir, stage.source, stage.calls, stage.faults)
    counts = verdict.counts
    print(json.dumps({**counts, "damaged": damaged}))
    assert (counts["lost"], counts["duplicated"]) == (0, 0)
    assert [finding for finding in verdict.findings if not finding.startswith("calls paid again")] == []
    assert 0 < counts["calls_repaid"] <= MOST_IN_A_TURN * damaged


def damage(run_dir: Path, rng: Random) -> int:
    """Spoil every segment of the journal in one of three ways; how many records that touched."""
    touched = 0
    for number, segment in enumerate(sorted((run_dir / ".peerloom/journal").glob("*.jnl"))):
        data = bytearray(segment.read_bytes())
        begin = max(0, len(data) - rng.randint(8 * PAGE, 16 * PAGE))
        if number % 3 == 0:
            touched += records(data, begin, len(data))
            del data[begin:]
        elif number % 3 == 1:
            touched += records(data, begin, len(data))
            data[begin:] = bytes(len(data) - begin)
        else:
            flipped = rng.sample(range(len(data)), 50)
            touched += sum(records(data, at, at + 1) for at in flipped)
            for at in flipped:
                data[at] ^= 1 << rng.randrange(8)
        segment.write_bytes(data)
    return touched


MOST_IN_A_TURN = max(sum(sum(step.values()) for step in steps) for steps in STEPS.values())
"""Calls that one record can hold."""
PAGE = 4096
MARKER = b"\xffPJ\x02"
"""What each record of the journal begins with."""


def records(data: bytearray, begin: int, end: int) -> int:
    """How many records have a byte between two offsets."""
    return data.count(MARKER, begin, end) + (data.rfind(MARKER, 0, begin + len(MARKER) - 1) >= 0)


@pytest.mark.parametrize("kinds", [KILLS, HOST_KILLS])
def test_each_kind_of_fault_comes_up(kinds: tuple[str, ...]) -> None:
    drawn = plan(2 * len(kinds), 2 * len(STOPS), Random(0), kinds)
    expected = {*kinds, *(f"stop-{target}-{length}" for target in STOPS for length in ("short", "long"))}
    assert {fault.kind for fault in drawn} == expected
    assert [fault.at for fault in drawn] == sorted(fault.at for fault in drawn)
    assert all(0.1 <= fault.at <= 0.8 for fault in drawn)


def test_a_seed_repeats_its_faults() -> None:
    assert plan(10, 5, Random(7)) == plan(10, 5, Random(7)) != plan(10, 5, Random(8))
