"""`offload`: what it costs to hand a value of some size from one member to others.

It is for the thresholds of `runtime.transport.compression`, and for whether a large value should travel with
its task at all. A value goes by the members' connection as it is (`plain`), compressed (`packed`), and by
`ray.put` and a call that gets it from the object store (`store`); to one or to four others, on the same node
and on another one. That is a network namespace with a wire that takes no time and holds any rate:
compression gains there what it saves in copying, and costs what it costs anywhere.

CPU time is that of all processes on the way, raylets too, wall time until every receiver has answered; both
are for one value handed to all. Values are text, which is compressed as a model's replies are
(`workloads/texts.py`), and every one is another.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.harness.hosts import TwoHosts, two_hosts
from benchmarks.harness.output import new_table, print_json, significant
from benchmarks.harness.process import OURS, Program, watched
from benchmarks.harness.run import scratch
from benchmarks.programs.transfer import WAYS
from benchmarks.workloads.texts import given

SAME, OTHER = "same", "other"
LIMIT = 600.0

Found = Mapping[str, Any]


def main(*, json: bool = False) -> None:
    """Measure and print; say on stderr if something cannot be measured here.

    Args:
        json: one JSON object a line for each size, fan-out and node on standard output, instead of a table.

    Raises:
        BenchError: if a measurement fails.
    """
    progress, points = Console(stderr=True), list[Found]()
    for node in (SAME, OTHER):
        if node == OTHER and (gap := TwoHosts.missing()):
            progress.print(f"offload: other node left out: {gap}")
            continue
        progress.print(f"offload: {node} node")
        found = asyncio.run(_other() if node == OTHER else _measured(OURS, "local"))
        points += [{"bench": "offload", "node": node, **point} for point in found]
    if json:
        for point in points:
            print_json({name: significant(value) for name, value in point.items()})
    else:
        Console().print(table(points))


async def _other() -> Sequence[Found]:
    async with two_hosts() as hosts:
        program = Program([*hosts.on(hosts.near), *OURS.argv], hosts.environment)
        return await _measured(program, hosts.environment["RAY_ADDRESS"], near="near", far="far")


async def _measured(program: Program, address: str, *, near: str = "", far: str = "") -> Sequence[Found]:
    spec = {"workload": "transfer", "address": address, "near": near, "far": far, "texts": given()}
    with scratch() as folder:
        seen = await watched(program, spec, folder, limit=LIMIT)
    return seen.said["points"]


def table(points: Sequence[Found]) -> Table:
    """Return the points as a table."""
    title = "python -m benchmarks offload: microseconds for a value handed to all receivers"
    shown = new_table(title, collapse_padding=True)
    shown.add_column("node")
    for name in ("to", "bytes", *(f"{way}\n{what}" for way in WAYS for what in ("CPU", "wall"))):
        shown.add_column(name, justify="right")
    for point in points:
        figures = (point[f"{way}_{what}_us"] for way in WAYS for what in ("cpu", "wall"))
        shown.add_row(
            point["node"],
            f"{point['fan_out']}",
            f"{point['size']:,}",
            *(f"{value:,.0f}" for value in figures),
        )
    return shown
