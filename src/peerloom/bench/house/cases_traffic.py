"""Rows of offloading and compression: bytes between two nodes for each task, with and without.

Two agents on two nodes say some characters each, in turn, so that every hop crosses the wire. Of two runs
with few and with many tasks only the difference counts: what the cluster says by itself is left out.

`WITHOUT` is what switches offloading and compression off. As long as `RunSettings` has no such switch, the
bytes are counted as they are, and nothing is said of a share.
"""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import partial
from typing import Any

from peerloom.bench.harness import scratch
from peerloom.bench.house.cases import Case, Figures, Found, Outcome, Side
from peerloom.bench.house.hosts import TwoHosts
from peerloom.bench.house.job import Job, Program, spec_of, watched
from peerloom.bench.house.rows import OPEN, Reach, Row, fraction, missing
from peerloom.bench.house.sides import OURS, US, Scope, side
from peerloom.bench.house.workloads import Workload
from peerloom.runtime.settings import RunSettings

WITHOUT: Mapping[str, Any] = {"offload": None, "compress": False}
TURNS = 6
SIZES: dict[int, tuple[str, Reach, int]] = {
    1_000: ("1 KB", fraction(0.8), 2_000),
    20_000: ("20 KB", fraction(0.4), 300),
}
FEW = 50
LARGE = "how often a value of 1 MB crosses to a node that reads it"
PLAIN = f"{US} without"


def _numbers(count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        yield {"number": number}


TURNED = Workload("turns", _numbers, lambda rows: 0, spec={"turns": TURNS, "placement": "spread"})


def switches() -> dict[str, Any]:
    """Those of `WITHOUT` that there are."""
    known = {field.name for field in fields(RunSettings)}
    return {name: value for name, value in WITHOUT.items() if name in known}


def cases(scope: Scope) -> list[Case]:
    """One for each size of a turn."""
    return [_case(scope, size) for size in SIZES]


def _case(scope: Scope, size: int) -> Case:
    gap, off = TwoHosts.missing(), switches()
    no_switch = "offloading and compression cannot be switched off: there is none in RunSettings"
    with_all = Side(US, None, gap) if gap else side(US, partial(_crossed, size, {}))
    if gap or not off:
        without = Side(PLAIN, None, gap or no_switch)
    else:
        without = side(PLAIN, partial(_crossed, size, off))
    return Case(
        f"traffic, turns of {SIZES[size][0]}", [with_all, without], partial(_rows, size), scope.times(1)
    )


async def _crossed(size: int, shape: Mapping[str, Any]) -> Figures:
    """Bytes of a task, and tasks a second, on a cluster of two nodes of its own."""
    tasks = SIZES[size][2]
    hosts = TwoHosts()
    await asyncio.to_thread(hosts.__enter__)
    try:
        few, _ = await _run(hosts, size, FEW, shape)
        many, seconds = await _run(hosts, size, tasks, shape)
    finally:
        await asyncio.to_thread(hosts.__exit__, None, None, None)
    return {"bytes_per_task": (many - few) / (tasks - FEW), "tasks_per_second": tasks / seconds}


async def _run(hosts: TwoHosts, size: int, tasks: int, shape: Mapping[str, Any]) -> tuple[int, float]:
    placed = {"address": hosts.environment["RAY_ADDRESS"], **shape}
    more = {"size": size, "shape": placed, "hosts": {"one": "near", "other": "far"}}
    job = Job(TURNED, tasks, min(tasks, 100), more=more, limit=300)
    program = Program([*hosts.on(hosts.near), *OURS.argv], hosts.environment)
    with scratch() as folder:
        spec = spec_of(job, folder, list(TURNED.rows(tasks)))
        before = hosts.crossed()
        seen = await watched(program, spec, folder, limit=job.limit)
        return hosts.crossed() - before, seen.end - seen.begin


def _rows(size: int, outcome: Outcome) -> list[Row]:
    name, reach, _ = SIZES[size]
    figure = f"bytes between two nodes a task of {TURNS} turns of {name}, with offloading and compression"
    mine, plain = outcome[US], outcome.get(PLAIN, Found())
    rows = [_row(figure, "bytes_per_task", mine, plain, reach)]
    rows.append(_row(f"tasks/s over two nodes, turns of {name}", "tasks_per_second", mine, plain, OPEN))
    if size == max(SIZES):
        rows.append(missing(LARGE, OPEN, "no value is offloaded"))
    return rows


def _row(figure: str, key: str, mine: Found, plain: Found, reach: Reach) -> Row:
    value, other = mine.get(key), plain.get(key)
    if value is None:
        return missing(figure, reach, mine.reason, "without")
    note = "" if other is not None else f"without not measured: {plain.reason}"
    return Row(figure, value, "without", other, reach, mine.spread(key), note)
