"""Rows of `hops`: what the framework alone costs, beside the reference's own workload of that shape."""

from dataclasses import replace
from functools import partial

from benchmarks.comparison.case import Case, Outcome
from benchmarks.comparison.job import Job
from benchmarks.comparison.rows import OPEN, Row, times
from benchmarks.comparison.sides import Scope, compared, ours, theirs
from benchmarks.workloads import HOPS

PLACEMENTS = ("spread", "packed")
REACH = {(1_000, "spread"): 200, (1_000, "packed"): 400, (100, "spread"): 70, (100, "packed"): 200}
REFERENCE = "matrix"
TASKS = {1_000: (12_000, 30_000), 100: (4_000, 12_000)}  # quick, full
REFERENCE_TASKS = {1_000: (1_000, 1_000), 100: (200, 200)}


def cases(scope: Scope) -> list[Case]:
    """Return a case for each width."""
    return [_case(scope, in_flight) for in_flight in (1_000, 100)]


def _case(scope: Scope, in_flight: int) -> Case:
    tasks, few = (sizes[in_flight][0 if scope.quick else 1] for sizes in (TASKS, REFERENCE_TASKS))
    jobs = {place: Job(HOPS, tasks, in_flight, more={"placement": place}) for place in PLACEMENTS}
    return Case(
        f"hops, {in_flight:,} in flight",
        [
            *(ours(job, _name(place)) for place, job in jobs.items()),
            theirs(scope, REFERENCE, replace(jobs["spread"], tasks=few)),
        ],
        partial(_rows, in_flight),
        runs=scope.times(3),
        shown=True,
    )


def _rows(in_flight: int, outcome: Outcome) -> list[Row]:
    rows: list[Row] = []
    for place in PLACEMENTS:
        figure = f"hops/s, {place}, {in_flight:,} in flight"
        reach = times(REACH[in_flight, place])
        rows.append(
            compared(figure, outcome, "hops_per_second", peer=REFERENCE, reach=reach, us=_name(place))
        )
    figure = f"CPU s per 1,000 hops, spread, {in_flight:,} in flight"
    key = "cpu_seconds_per_1000_hops"
    rows.append(compared(figure, outcome, key, peer=REFERENCE, reach=OPEN, us=_name("spread")))
    return rows


def _name(place: str) -> str:
    return f"peerloom {place}"
