import sys
from pathlib import Path

import aiohttp
import pytest

from benchmarks.harness import simulated_llm as module
from benchmarks.harness.points import BenchError
from benchmarks.harness.simulated_llm import Served, served, simulated_llm

LINE = '{{"t":{t},"received":{received},"key":"k","session":"","status":{status}}}\n'


def write_log(path: Path, *calls: tuple[float, float, int]) -> Path:
    path.write_text(
        "".join(LINE.format(received=received, t=t, status=status) for received, t, status in calls)
    )
    return path


def test_the_log_tells_when_the_first_call_came_and_the_last_was_answered(tmp_path: Path) -> None:
    log = write_log(tmp_path / "calls.jsonl", (10.5, 11.0, 200), (10.0, 12.5, 200), (11.0, 11.5, 200))
    assert served(log, 3) == Served(3, 10.0, 12.5)


@pytest.mark.parametrize("expected", [1, 2, 3])
def test_calls_that_are_missing_repeated_or_failed_spoil_it(tmp_path: Path, expected: int) -> None:
    log = write_log(tmp_path / "calls.jsonl", (10.0, 11.0, 200), (10.0, 11.0, 503))
    with pytest.raises(BenchError, match=f"{expected} calls were due, the model has got 2 and answered 1"):
        served(log, expected)


@pytest.mark.slow
async def test_the_model_runs_in_a_process_of_its_own_and_logs_its_calls(tmp_path: Path) -> None:
    log = tmp_path / "calls.jsonl"
    async with simulated_llm(log, latency=0.01, tokens=250) as (url, _), aiohttp.ClientSession() as session:
        body = {"model": "simulated", "messages": [{"role": "user", "content": "hello"}]}
        async with session.post(f"{url}/chat/completions", json=body) as response:
            reply = await response.json()
    assert len(reply["choices"][0]["message"]["content"]) == pytest.approx(1_000, abs=20)
    calls, first, last, tokens = served(log, 1)
    assert calls == 1
    assert last - first >= 0.01
    assert tokens == 250


async def test_a_model_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PEERLOOM", (sys.executable, "-c", "exit('no model today')"))
    with pytest.raises(BenchError, match="no model today"):
        async with simulated_llm(tmp_path / "calls.jsonl", latency=0, tokens=1):
            pass
