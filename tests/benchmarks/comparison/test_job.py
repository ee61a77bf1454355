import sys

import pytest

from benchmarks.comparison.job import Job, measured
from benchmarks.comparison.peers import absent, known, program
from benchmarks.harness.points import BenchError
from benchmarks.harness.process import Program
from benchmarks.workloads.base import Workload, numbered
from benchmarks.workloads.mini_coral import MINI_CORAL

GOOD = """
import json, sys, time
spec = json.load(open(sys.argv[1]))
rows = open(spec["rows"]).read().splitlines()
begin = time.time()
until = time.process_time() + 0.3
while time.process_time() < until: pass
print("some noise")
said = {"tasks": len(rows), "hops": 3 * len(rows), "figures": {"x": 2}}
print(json.dumps({"begin": begin, "end": time.time(), **said}))
"""


ENDLESS = """
import json, sys, urllib.request
spec = json.load(open(sys.argv[1]))
body = json.dumps({"model": "simulated", "messages": [{"role": "user", "content": "on and on"}]}).encode()
while True:
    headers = {"Content-Type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(spec["url"] + "/chat/completions", body, headers)).read()
"""


WORK = Workload("nothing", numbered)


@pytest.mark.slow
async def test_a_program_is_watched_from_outside() -> None:
    job = Job(WORK, tasks=10, in_flight=5, every=0.05, derive=lambda seen: {"rows": seen.said["tasks"]})
    found = await measured(Program([sys.executable, "-c", GOOD]), job)
    assert found["x"] == 2
    assert found["rows"] == 10
    assert found["hops_per_second"] == pytest.approx(3 * found["tasks_per_second"])
    assert 0.1 < found["cpu_seconds"] < 0.6
    assert found["cpu_seconds_per_1000_hops"] == pytest.approx(found["cpu_seconds"] * 1_000 / 30)
    assert found["peak_megabytes"] > 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "limit", "said"),
    [
        ("exit('no luck')", 30, "ended with code 1: no luck"),
        ("print('{}')", 30, r"ended with code 0: \{\}"),
        ("import time; time.sleep(60)", 0.3, "not done after 0 s"),
    ],
)
async def test_a_program_that_fails_says_why(code: str, limit: float, said: str) -> None:
    with pytest.raises(BenchError, match=said):
        await measured(Program([sys.executable, "-c", code]), Job(WORK, 1, 1, limit=limit))


@pytest.mark.slow
async def test_one_that_would_take_hours_is_stopped_and_measured_by_its_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("benchmarks.harness.process.LOOK_SECONDS", 0.05)
    job = Job(MINI_CORAL, tasks=1_000, in_flight=1, latency=0.01, every=0.05, enough=0.5)
    found = await measured(Program([sys.executable, "-c", ENDLESS]), job)
    assert 0.3 < found["stopped_after"] < 10
    assert 5 < found["calls_per_second"] < 100
    assert found["share_of_ideal"] == pytest.approx(found["calls_per_second"] / 100)
    assert "tasks_per_second" not in found


@pytest.mark.slow
async def test_the_loop_that_a_user_would_write_does_the_work() -> None:
    peer = known("aiohttp")
    if reason := absent(peer):
        pytest.skip(reason)
    job = Job(MINI_CORAL, tasks=200, in_flight=50, latency=0.01, every=0.05, limit=60, enough=50)
    found = await measured(program(peer), job)
    assert 0 < found["share_of_ideal"] <= 1
    assert found["tokens_per_second"] == pytest.approx(250 * found["calls_per_second"], rel=0.01)
    assert found["cpu_seconds_per_1000_calls"] > 0
