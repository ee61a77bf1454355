"""Rows of `nr` and `tau`: the paper's other two comparisons, over a simulated model."""

from dataclasses import replace
from functools import partial

from benchmarks.comparison.case import Case, Outcome
from benchmarks.comparison.job import Job
from benchmarks.comparison.rows import OPEN, Row, times
from benchmarks.comparison.sides import Scope, compared, ours, theirs
from benchmarks.workloads import NR, TAU

BATCHES = "raydata"
THREADS = "threads"
ENOUGH = 20.0  # seconds of calls of what is far slower


def cases(scope: Scope) -> list[Case]:
    """Return one case of documents against batches, and one of dialogues with a tool against threads."""
    return [_documents(scope), _dialogues(scope)]


def _documents(scope: Scope) -> Case:
    in_flight = 1_000
    job = Job(NR, 3_000 if scope.quick else 6_000, in_flight, 0.05)
    slower = replace(job, enough=ENOUGH if scope.quick else 3 * ENOUGH)
    sides = [ours(job), theirs(scope, BATCHES, slower)]
    if not scope.quick or scope.peers is not None:
        slow = theirs(scope, "openai", slower)
        sides += [theirs(scope, "aiohttp", job), replace(slow, once=True)]
    rows = partial(_document_rows, in_flight)
    return Case(f"nr, {in_flight:,} in flight", sides, rows, runs=scope.times(3), shown=True)


def _document_rows(in_flight: int, outcome: Outcome) -> list[Row]:
    figure = f"paper, NaturalReasoning: tokens/s row by row against batches, {in_flight:,} in flight"
    rows = [compared(figure, outcome, "tokens_per_second", peer=BATCHES, reach=times(2.1))]
    figure = f"nr tokens/s, {in_flight:,} in flight"
    others = [name for name in outcome if name not in ("peerloom", BATCHES)]
    return rows + [compared(figure, outcome, "tokens_per_second", peer=name, reach=OPEN) for name in others]


def _dialogues(scope: Scope) -> Case:
    in_flight = 1_000
    job = Job(TAU, in_flight, in_flight, 0.5)
    threads = replace(job, enough=ENOUGH) if scope.quick else job
    return Case(
        f"tau, {in_flight:,} in flight",
        [ours(job), theirs(scope, THREADS, threads)],
        partial(_dialogue_rows, in_flight),
        runs=scope.times(1),
        shown=True,
    )


def _dialogue_rows(in_flight: int, outcome: Outcome) -> list[Row]:
    figure = f"paper, tau: tokens/s against threads, {in_flight:,} in flight"
    return [compared(figure, outcome, "tokens_per_second", peer=THREADS, reach=times(15.4))]
