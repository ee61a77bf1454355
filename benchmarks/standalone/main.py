"""Measures every setting of a benchmark, and prints its points as a table or as JSON lines."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.harness.output import new_table, print_json
from benchmarks.harness.points import Bench, Placement, Point, Setting, Without, middle
from benchmarks.standalone import affinity, calls, hops, recovery
from peerloom.errors import ConfigError

BENCHES = {bench.name: bench for bench in (hops.BENCH, calls.BENCH, recovery.BENCH, affinity.BENCH)}

_TITLES = {
    "placement": "placed",
    "in_flight": "in\nflight",
    "hops_per_task": "hops\na task",
    "tasks_per_second": "tasks/s",
    "hops_per_second": "hops/s",
    "latency_seconds": "latency\ns",
    "calls_per_second": "calls/s",
    "share_of_ideal": "share of\nideal",
    "noticed_seconds": "noticed\ns",
    "replaced_seconds": "replaced\ns",
    "admitted_seconds": "admitted\nagain s",
    "calls_repaid": "calls\nrepaid",
    "prefix_hit_rate": "prefix\nhits",
    "prompt_tokens": "prompt\ntokens",
    "evaluated_tokens": "of them\nevaluated",
    "tokens_per_second": "tokens/s",
    "wall_seconds": "wall s",
    "peak_megabytes": "peak\nMiB",
    "cpu_seconds_per_1000_calls": "CPU s per\n1,000 calls",
}


def main(
    name: str,
    *,
    in_flight: int | None = None,
    tasks: int | None = None,
    placement: Placement | None = None,
    runs: int | None = None,
    without: Without | None = None,
    json: bool = False,
) -> None:
    """Measure and print.

    Args:
        name: one of `BENCHES`.
        in_flight: measure with so many tasks at once only.
        tasks: of each run, instead of the benchmark's own number.
        placement: measure this one only.
        runs: so many of each setting; the median is printed.
        without: measure each setting with this switched off too, run by run in turn, and print the ratio.
            `affinity` is what its own benchmark does without in any case, and no other has it.
        json: one JSON object a line for each setting on standard output, instead of a table.

    Raises:
        ConfigError: if there is no such benchmark.
        PeerloomError: whatever a run raises.
    """
    bench = BENCHES.get(name)
    if bench is None:
        raise ConfigError(f"there is no benchmark {name!r}; there are {', '.join(BENCHES)}, limits, offload")
    if without is not None and bench is recovery.BENCH:
        raise ConfigError("recovery is measured with everything on: without a journal nothing is recovered")
    if without is not None and (without == "affinity" or bench.compared is not None):
        raise ConfigError("affinity is a benchmark of its own, which measures with and without that only")
    without = without or bench.compared
    runs = runs or bench.runs
    points: list[Point] = []
    for setting in bench.settings(in_flight, tasks, placement):
        sides = [setting, replace(setting, without=without)] if without else [setting]
        measured = _measure(bench, sides, runs)
        points += measured
        for shown in (*measured, *_ratios(measured)) if json else ():
            found = shown.as_json() if isinstance(shown, Point) else shown
            print_json(found)
    if not json:
        Console().print(table(bench, points, runs))


def _measure(bench: Bench, sides: Sequence[Setting], runs: int) -> list[Point]:
    """Return the medians of the settings, which take turns: so a noisy minute hits all of them."""
    progress = Console(stderr=True)
    measured: list[list[Point]] = [[] for _ in sides]
    for turn in range(runs):
        for setting, found in zip(sides, measured, strict=True):
            progress.print(
                f"{bench.name}: {setting.placement}, {setting.in_flight:,} in flight, "
                f"{setting.tasks:,} tasks{_off(setting.without)}, run {turn + 1} of {runs}"
            )
            found.append(asyncio.run(bench.run(setting)))
    return [middle(found) for found in measured]


def _ratios(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Return the tasks a second with everything on, as a share of those with something off."""
    return [
        {
            "bench": whole.bench,
            "placement": whole.placement,
            "in_flight": whole.in_flight,
            "compared_without": off.without,
            "ratio": round(whole.tasks_per_second / off.tasks_per_second, 4),
        }
        for whole, off in pairwise(points)
        if off.without and not whole.without
    ]


def _off(without: Without | None) -> str:
    return f", without {without}" if without else ""


def table(bench: Bench, points: list[Point], runs: int) -> Table:
    """Return the points as a table."""
    what = "one run each" if runs == 1 else f"medians of {runs} runs"
    title = f"python -m benchmarks {bench.name}: {what}"
    shown = new_table(title, collapse_padding=True)
    rows = [{key: value for key, value in point.as_json().items() if key != "bench"} for point in points]
    keys = max(rows, key=len)
    for key, value in keys.items():
        shown.add_column(_TITLES.get(key, key), justify="left" if isinstance(value, str) else "right")
    for row in rows:
        shown.add_row(*(_text(row.get(key, "")) for key in keys))
    shown.caption = "\n".join(
        f"{ratio['placement']}, {ratio['in_flight']:,} in flight: {ratio['ratio']:.3f} of the tasks/s "
        f"without {ratio['compared_without']}"
        for ratio in _ratios(points)
    )
    return shown


def _text(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if isinstance(value, int) or value >= 1_000 else f"{value:,.3g}"
