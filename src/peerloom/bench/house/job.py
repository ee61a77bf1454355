"""One measurement of one system: its process is started, watched from outside, and asked for one line.

Every system is the same here, ours too: a program is given the path of a JSON file that says what to do (the
*spec*) and prints, as its last line, an object with `begin` and `end`: Unix seconds of the first task's
admission and of the last one's end. Its CPU time, its memory and that of all below it are taken from outside,
and its calls from the log of the model, which runs in a process of its own. So a system that would take hours
can be stopped on the way, and measured by the calls it has made.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import psutil

from peerloom.bench.cpu import CpuMeter
from peerloom.bench.harness import scratch
from peerloom.bench.house.cases import Figures
from peerloom.bench.house.loopback import TrafficMeter
from peerloom.bench.house.workloads import Workload
from peerloom.bench.memory import MemoryMeter
from peerloom.bench.model import Served, first_call, served_about, served_so_far, simulated_llm
from peerloom.bench.points import BenchError
from peerloom.services.spawn import ChildProcess, LocalSpawner

PROBES = 10
"""Calls beyond the work that a system may make, to see whether the model is there."""
LOOK_SECONDS = 1.0  # between two looks whether it is enough
_WORDS = 400  # characters of its last line


@dataclass(frozen=True)
class Program:
    """What is started.

    Args:
        argv: program and arguments; the path of the spec is added.
        env: beside ours.
    """

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Job:
    """What is to be done, once.

    Args:
        workload: of which kind.
        tasks: how many.
        in_flight: how many at once.
        latency: seconds of a call of the model.
        more: further entries of the spec.
        limit: seconds after which it is given up.
        enough: seconds from its first call after which it is stopped, and measured by what it did; None is
            never.
        every: seconds between two looks at it.
        derive: makes further figures of what was seen.
    """

    workload: Workload
    tasks: int
    in_flight: int
    latency: float = 0.0
    more: Mapping[str, Any] = field(default_factory=dict[str, Any])
    limit: float = 900.0
    enough: float | None = None
    every: float = 0.5
    derive: "Callable[[Seen], Figures] | None" = None


class Seen:
    """What was seen of a process from outside, and what it said."""

    def __init__(self, root: int, every: float) -> None:
        self.cpu = CpuMeter(root=root, every=every)
        self.memory = MemoryMeter(root=root, every=max(every, 0.5))
        self.traffic = TrafficMeter(every=every)
        self.said: dict[str, Any] = {}
        self.stopped = False

    @property
    def begin(self) -> float:
        """When its first task was admitted."""
        return float(self.said["begin"])

    @property
    def end(self) -> float:
        """When its last task was over."""
        return float(self.said["end"])


async def measured(program: Program, job: Job) -> Figures:
    """Do a job and say what it took.

    Raises:
        BenchError: if the program fails, says nothing, takes too long, or calls the model less or more often.
    """
    with scratch() as folder:
        rows = list(job.workload.rows(job.tasks))
        calls = job.workload.calls(rows)
        log, spec = folder / "calls.jsonl", spec_of(job, folder, rows)
        async with AsyncExitStack() as stack:
            if calls:
                laws = dict(job.workload.laws)
                tokens = int(laws.pop("tokens"))
                model = simulated_llm(log, latency=job.latency, tokens=tokens, **laws)
                spec["url"], _ = await stack.enter_async_context(model)
            started = time.time()
            enough = partial(_called_for, log, job.enough) if calls and job.enough is not None else None
            seen = await watched(program, spec, folder, limit=job.limit, every=job.every, enough=enough)
        served = await asyncio.to_thread(_served, log, calls, seen) if calls else None
    return figures(job, seen, served, started)


async def watched(
    program: Program,
    spec: Mapping[str, Any],
    folder: Path,
    *,
    limit: float,
    every: float = 0.5,
    enough: Callable[[], bool] | None = None,
) -> Seen:
    """Run a program to its end, or until it is `enough`, and watch it.

    Raises:
        BenchError: see `measured`.
    """
    path, output = folder / "spec.json", folder / "output"
    path.write_bytes(orjson.dumps(spec))
    child = await LocalSpawner().start(
        [*program.argv, str(path)], name=program.argv[-1], env=program.env, log=output
    )
    try:
        seen = Seen(child.pid, every)
        async with _watching(seen), asyncio.timeout(limit):
            code = await _ended(child, enough)
    except TimeoutError:
        raise BenchError(f"not done after {limit:,.0f} s") from None
    finally:
        await end_all(child.pid)
        await child.stop()
    if code is None:
        seen.stopped = True
        return seen
    text = output.read_text(errors="replace")
    seen.said = _last_line(text) if code == 0 else {}
    if not {"begin", "end"} <= seen.said.keys():
        [*_, words] = text.strip().splitlines() or ["it says nothing"]
        raise BenchError(f"it ended with code {code}: {words[-_WORDS:]}")
    return seen


async def _ended(child: ChildProcess, enough: Callable[[], bool] | None) -> int | None:
    """Wait for the end of a process; None if it is enough before."""
    while enough is not None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                return await child.wait()
        if await asyncio.to_thread(enough):
            return None
    return await child.wait()


def _called_for(log: Path, seconds: float) -> bool:
    """Whether the first call is so long ago."""
    first = first_call(log)
    return first is not None and time.time() - first >= seconds


def _served(log: Path, calls: int, seen: Seen) -> Served:
    return served_so_far(log) if seen.stopped else served_about(log, calls, PROBES)


def figures(job: Job, seen: Seen, served: Served | None, started: float) -> Figures:
    """All that can be said of one measurement."""
    begin, end = (served.first, served.last) if served else (seen.begin, seen.end)
    cpu = seen.cpu.used(begin, end)
    found: Figures = {
        **({} if seen.stopped else {"tasks_per_second": job.tasks / (seen.end - seen.begin)}),
        "peak_megabytes": seen.memory.peak / 2**20,
        "start_seconds": begin - started,
        "cpu_seconds": cpu,
        **{name: float(value) for name, value in seen.said.get("figures", {}).items()},
    }
    if seen.stopped:
        found["stopped_after"] = end - begin
    if job.derive is not None:
        found |= job.derive(seen)
    if served is not None:
        rate = served.calls / (end - begin)
        found["calls_per_second"] = rate
        found["tokens_per_second"] = served.tokens / (end - begin)
        found["cpu_seconds_per_1000_calls"] = cpu * 1_000 / served.calls
        if job.latency and "tokens_per_second" not in job.workload.laws:  # all calls take as long
            found["share_of_ideal"] = rate / (job.in_flight / job.latency)
    if hops := seen.said.get("hops"):
        found["hops_per_second"] = hops / (end - begin)
        found["cpu_seconds_per_1000_hops"] = cpu * 1_000 / hops
    if hops and served is None:  # what is said to a model is no traffic between processes of a system
        found["loopback_bytes_per_task"] = seen.traffic.moved(begin, end) / job.tasks
    return found


def spec_of(job: Job, folder: Path, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a program is told to do, with the rows written to a file."""
    path = folder / "rows.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))
    return {
        "workload": job.workload.name,
        "rows": str(path),
        "folder": str(folder),
        "tasks": job.tasks,
        "in_flight": job.in_flight,
        "latency": job.latency,
        "model": "simulated",
        **job.workload.spec,
        **job.more,
    }


@asynccontextmanager
async def _watching(seen: Seen) -> AsyncGenerator[None]:
    async with seen.cpu, seen.memory, seen.traffic:
        yield


async def end_all(pid: int) -> None:
    """End a process and all below it, whatever sessions they are in."""
    with suppress(psutil.NoSuchProcess):
        top = psutil.Process(pid)
        for process in [*top.children(recursive=True), top]:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _last_line(text: str) -> dict[str, Any]:
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            with suppress(orjson.JSONDecodeError):
                return orjson.loads(line)
    return {}
