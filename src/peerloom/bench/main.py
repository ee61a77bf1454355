"""The body of `peerloom bench`: measures every setting, prints its points as a table or as JSON lines."""

import asyncio
import sys

import orjson
from rich import box
from rich.console import Console
from rich.table import Table

from peerloom.bench import calls, hops
from peerloom.bench.points import Bench, Placement, Point, middle
from peerloom.errors import ConfigError

BENCHES = {bench.name: bench for bench in (hops.BENCH, calls.BENCH)}

_TITLES = {
    "placement": "placed",
    "in_flight": "in\nflight",
    "hops_per_task": "hops\na task",
    "tasks_per_second": "tasks/s",
    "hops_per_second": "hops/s",
    "latency_seconds": "latency\ns",
    "calls_per_second": "calls/s",
    "share_of_ideal": "share of\nideal",
    "cpu_seconds_per_1000_calls": "CPU s per\n1,000 calls",
}


def main(
    name: str,
    *,
    in_flight: int | None = None,
    tasks: int | None = None,
    placement: Placement | None = None,
    runs: int | None = None,
    json: bool = False,
) -> None:
    """Measure and print.

    Args:
        name: one of `BENCHES`.
        in_flight: measure with so many tasks at once only.
        tasks: of each run, instead of the benchmark's own number.
        placement: measure this one only.
        runs: so many of each setting; the median is printed.
        json: one JSON object a line for each setting on standard output, instead of a table.

    Raises:
        ConfigError: if there is no such benchmark.
        PeerloomError: whatever a run raises.
    """
    bench = BENCHES.get(name)
    if bench is None:
        raise ConfigError(f"there is no benchmark {name!r}; there are {', '.join(BENCHES)}")
    progress = Console(stderr=True)
    points: list[Point] = []
    for setting in bench.settings(in_flight, tasks, placement):
        measured: list[Point] = []
        for turn in range(runs or bench.runs):
            progress.print(
                f"{name}: {setting.placement}, {setting.in_flight:,} in flight, {setting.tasks:,} tasks, "
                f"run {turn + 1} of {runs or bench.runs}"
            )
            measured.append(asyncio.run(bench.run(setting)))
        points.append(middle(measured))
        if json:
            sys.stdout.buffer.write(orjson.dumps(points[-1].as_json(), option=orjson.OPT_APPEND_NEWLINE))
            sys.stdout.flush()
    if not json:
        Console().print(table(bench, points, runs or bench.runs))


def table(bench: Bench, points: list[Point], runs: int) -> Table:
    """The points for people."""
    what = "one run each" if runs == 1 else f"medians of {runs} runs"
    title = f"peerloom bench {bench.name}: {what}"
    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, collapse_padding=True)
    rows = [{key: value for key, value in point.as_json().items() if key != "bench"} for point in points]
    for key, value in rows[0].items():
        shown.add_column(_TITLES.get(key, key), justify="left" if isinstance(value, str) else "right")
    for row in rows:
        shown.add_row(*(_text(value) for value in row.values()))
    return shown


def _text(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if isinstance(value, int) or value >= 1_000 else f"{value:,.3g}"
