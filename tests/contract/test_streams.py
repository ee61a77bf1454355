"""A source without an end: its rows are recorded before they are used, so no death loses or repeats one."""

import asyncio
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from programs import slow
from test_resume import Watch, lines

from peerloom.services.llm.simulated.service import SimulatedService
from peerloom.source.stream.recording import StreamSource
from peerloom.source.stream.streams import IterableStream
from peerloom.testing import execute

ROWS = 240  # three seconds in the first session, which is told of its rows each second

PROGRAM = """
import asyncio, sys, peerloom

async def work(task):
    if sys.argv[2] == "first" and task.input["n"] >= 10:
        await asyncio.Event().wait()
    return task.input["n"]

class Report(peerloom.Hooks):
    def progress(self, event):
        if sum(event.outcomes.values()) >= 10:
            print("ten", flush=True)

if __name__ == "__main__":
    result = peerloom.run(
        workflow=peerloom.Sequence("a"), agents={"a": peerloom.FunctionAgent(work)}, source="-",
        llm="simulated", engine="local", run_dir=sys.argv[1], hooks=[Report()], progress=False,
    )
"""


def numbers(start: int) -> Iterator[dict[str, Any]]:
    return ({"n": number} for number in itertools.count(start))


async def test_a_stream_goes_on_after_a_session_that_was_broken_off(engine: str, tmp_path: Path) -> None:
    source = StreamSource(IterableStream(numbers), limit=ROWS)
    watch = Watch(8)
    settings = {"engine": engine, "partitions": 2, "in_flight": 4}
    running = asyncio.create_task(
        execute(slow(0.05), source, SimulatedService(), tmp_path / "run", hooks=[watch], **settings)
    )
    watch.then = running.cancel
    with pytest.raises(asyncio.CancelledError):
        await running
    kept = lines(tmp_path / "run")
    assert 8 <= len(kept) < ROWS
    done = await execute(slow(0.0), source, SimulatedService(), tmp_path / "run", **settings)
    assert done.summary["admitted"] == ROWS
    found = lines(tmp_path / "run")
    assert found.keys() == {f"0-{number}-0" for number in range(ROWS)}
    assert kept.items() <= found.items()


def test_a_pipe_goes_on_after_a_kill(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, program, tmp_path / "run"]
    rows = [f'{{"n": {number}}}\n'.encode() for number in range(60)]
    with subprocess.Popen([*command, "first"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdin is not None and first.stdout is not None
        os.write(first.stdin.fileno(), b"".join(rows[:30]))
        assert first.stdout.readline() == b"ten\n"
        first.send_signal(signal.SIGKILL)
    ended = subprocess.run([*command, "second"], input=b"".join(rows[30:]), capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert lines(tmp_path / "run").keys() == {f"0-{number}-0" for number in range(60)}
