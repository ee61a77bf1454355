"""The row of tasks in flight: what memory each needs while its model thinks for a minute."""

import sys
from functools import partial

import orjson

from benchmarks.comparison.case import Case, Figures, Outcome, Side
from benchmarks.comparison.job import Job, measured
from benchmarks.comparison.rows import Row, at_most
from benchmarks.comparison.sides import US, Scope, compared
from benchmarks.harness.process import OURS, Program
from benchmarks.workloads.base import Rows, Workload, numbered
from peerloom.services.llm.simulated.prose import prose

IN_FLIGHT = 100_000
FEW = 1_000
THOUGHT = 60.0  # seconds of a call
BARE = "bare asyncio task"
CHARACTERS = 1_000  # of a row's text


def _rows_of(count: int) -> Rows:
    text = prose(CHARACTERS, 0)
    for row in numbered(count):
        yield {**row, "text": text}


WAITING = Workload("waiting", _rows_of)
PAYLOAD = len(orjson.dumps(next(_rows_of(1))))


def cases(scope: Scope) -> list[Case]:
    """Return one case."""
    sides = [Side(US, partial(_ours, IN_FLIGHT)), Side(BARE, _bare)]
    return [Case(f"tasks in flight, {IN_FLIGHT:,}", sides, _rows, runs=scope.times(1))]


async def _ours(count: int) -> Figures:
    """Measure the memory of many tasks, without that of a run of few."""
    few = await measured(OURS, Job(WAITING, FEW, FEW, 1.0))
    many = await measured(OURS, Job(WAITING, count, count, THOUGHT))
    more = (many["peak_megabytes"] - few["peak_megabytes"]) * 2**20 / (count - FEW)
    return {
        "bytes_each": more - PAYLOAD,
        "peak_megabytes": many["peak_megabytes"],
        "without_megabytes": few["peak_megabytes"],
        "seconds": count / many["tasks_per_second"],
    }


async def _bare() -> Figures:
    program = Program([sys.executable, "-m", "benchmarks.programs.bare"])
    return await measured(program, Job(WAITING, IN_FLIGHT, IN_FLIGHT, more={"payload": PAYLOAD}))


def _rows(outcome: Outcome) -> list[Row]:
    figure = (
        f"{IN_FLIGHT:,} tasks in flight, model of {THOUGHT:g} s: bytes each beyond a payload of {PAYLOAD:,}"
    )
    return [compared(figure, outcome, "bytes_each", peer=BARE, reach=at_most(8_192), note=_note)]


def _note(found: Figures) -> str:
    return (
        f"all processes together {found['peak_megabytes']:,.0f} MiB at the peak, "
        f"{found['without_megabytes']:,.0f} MiB of them with {FEW:,} tasks; {found['seconds']:,.0f} s in all"
    )
