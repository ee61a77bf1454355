"""One measurement of one system: its program is started on a workload, and its figures are taken.

Calls are those in the log of the model, which runs in a process of its own. So a system that would take hours
can be stopped on the way, and measured by the calls it has made.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from benchmarks.comparison.case import Figures
from benchmarks.harness.process import Program, Seen, watched
from benchmarks.harness.run import scratch
from benchmarks.harness.simulated_llm import Served, first_call, served, served_so_far, simulated_llm
from benchmarks.workloads.base import Workload

PROBES = 10
"""Calls beyond the work that a system may make, to see whether the model is there."""


@dataclass(frozen=True)
class Job:
    """One measurement to make.

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
    derive: Callable[[Seen], Figures] | None = None


async def measured(program: Program, job: Job) -> Figures:
    """Do a job and return its figures.

    Raises:
        BenchError: if the program fails, says nothing, takes too long, or calls the model less or more often.
    """
    with scratch() as folder:
        rows = list(job.workload.rows(job.tasks))
        calls = job.workload.calls(rows)
        log, spec = folder / "calls.jsonl", spec_of(job, folder, rows)
        async with AsyncExitStack() as stack:
            if calls:
                behavior = dict(job.workload.behavior)
                tokens = int(behavior.pop("tokens"))
                model = simulated_llm(log, latency=job.latency, tokens=tokens, **behavior)
                spec["url"], _ = await stack.enter_async_context(model)
            started = time.time()
            enough = partial(_called_for, log, job.enough) if calls and job.enough is not None else None
            seen = await watched(program, spec, folder, limit=job.limit, every=job.every, enough=enough)
        answered = await asyncio.to_thread(_answered, log, calls, seen) if calls else None
    return figures(job, seen, answered, started)


def _called_for(log: Path, seconds: float) -> bool:
    """Return whether the first call is so long ago."""
    first = first_call(log)
    return first is not None and time.time() - first >= seconds


def _answered(log: Path, calls: int, seen: Seen) -> Served:
    return served_so_far(log) if seen.stopped else served(log, calls, spare=PROBES)


def figures(job: Job, seen: Seen, served: Served | None, started: float) -> Figures:
    """Return all figures of one measurement."""
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
        if job.latency and "tokens_per_second" not in job.workload.behavior:  # all calls take as long
            found["share_of_ideal"] = rate / (job.in_flight / job.latency)
    if hops := seen.said.get("hops"):
        found["hops_per_second"] = hops / (end - begin)
        found["cpu_seconds_per_1000_hops"] = cpu * 1_000 / hops
    if hops and served is None:  # what is said to a model is no traffic between processes of a system
        found["loopback_bytes_per_task"] = seen.traffic.moved(begin, end) / job.tasks
    return found


def spec_of(job: Job, folder: Path, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the spec of a job, and write its rows to a file."""
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
