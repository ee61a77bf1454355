"""The row of starting: from `peerloom run` to the first call of a model, Ray's own start included."""

import asyncio
import time
from contextlib import suppress
from pathlib import Path

import orjson

from benchmarks.comparison.case import Case, Figures, Outcome, Side
from benchmarks.comparison.job import Job
from benchmarks.comparison.rows import Row, at_most
from benchmarks.comparison.sides import US, Scope, compared, theirs
from benchmarks.harness.points import BenchError
from benchmarks.harness.process import end_all
from benchmarks.harness.run import scratch
from benchmarks.harness.simulated_llm import PEERLOOM, simulated_llm
from benchmarks.workloads import HOPS, MINI_CORAL
from peerloom.services.processes.spawn import ChildProcess, LocalSpawner

REFERENCE = "matrix"
LIMIT = 120.0
LOOK_SECONDS = 0.02


def cases(scope: Scope) -> list[Case]:
    """Return one case; of the reference it measures the first message, since it calls no model."""
    sides = [Side(US, first_call)]
    if not scope.quick or scope.peers is not None:
        sides.append(theirs(scope, REFERENCE, Job(HOPS, 20, 20)))
    return [Case("start", sides, _rows, runs=scope.times(5))]


async def first_call() -> Figures:
    """Start a run of coral, and end it once it has called.

    Raises:
        BenchError: if it does not call.
    """
    with scratch() as folder:
        log, rows = folder / "calls.jsonl", folder / "rows.jsonl"
        await asyncio.to_thread(_write_questions, rows)
        async with simulated_llm(log, latency=0.5, tokens=50) as (url, _):
            keys = [f"source.path={rows}", "llm=openai", f"llm.base_url={url}"]
            command = [*PEERLOOM, "run", "coral", *keys, "--run-dir", str(folder / "run"), "--quiet"]
            started = time.time()
            child = await LocalSpawner().start(command, name="peerloom run", log=folder / "output")
            try:
                return {"start_seconds": await _first(log, started + LIMIT, child) - started}
            finally:
                await end_all(child.pid)
                await child.stop()


def _write_questions(path: Path) -> None:
    lines = [orjson.dumps({**row, "answer": "A"}) for row in MINI_CORAL.rows(64)]
    path.write_bytes(b"\n".join(lines))


async def _first(log: Path, until: float, child: ChildProcess) -> float:
    while time.time() < until:
        with suppress(OSError, orjson.JSONDecodeError, IndexError):
            lines = await asyncio.to_thread(log.read_bytes)
            return float(orjson.loads(lines.splitlines()[0])["received"])
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                code = await child.wait()
                raise BenchError(f"it ended with code {code} before any call: {await child.output()}")
    raise BenchError(f"no call within {LIMIT:g} s: {await child.output()}")


def _rows(outcome: Outcome) -> list[Row]:
    figure = "seconds from `peerloom run` to the first call, Ray's start included"
    peer = REFERENCE if REFERENCE in outcome else ""
    return [compared(figure, outcome, "start_seconds", peer=peer, reach=at_most(5))]
