"""Rows of `mini-coral`: how busy each system keeps a model, and what a call costs in CPU time."""

from dataclasses import replace
from functools import partial

from benchmarks.comparison.case import Case, Outcome, Side
from benchmarks.comparison.job import Job
from benchmarks.comparison.peers import PEERS
from benchmarks.comparison.rows import OPEN, Row, at_least, at_most, times
from benchmarks.comparison.sides import Scope, compared, ours, theirs
from benchmarks.workloads import MINI_CORAL

LATENCY = 0.5
REACH = {100: 0.98, 1_000: 0.97, 5_000: 0.90}
LOOP = "aiohttp"
CENTRAL = "openai"
CENTRAL_AT = 1_000
FAST = ("aiohttp", "raydata")
ENOUGH = 60.0  # seconds of calls of the others, which make some hundred a second; half of that for --quick


def cases(scope: Scope) -> list[Case]:
    """Return a case for each width; in full also without latency, and a width that no peer reaches."""
    found = [_case(scope, in_flight, LATENCY) for in_flight in REACH]
    if not scope.quick:
        found += [_case(scope, 20_000, LATENCY), _case(scope, 100, 0.0), _case(scope, 1_000, 0.0)]
    return found


def _case(scope: Scope, in_flight: int, latency: float) -> Case:
    job = Job(MINI_CORAL, _tasks(scope, in_flight, latency), in_flight, latency)
    all_peers = latency > 0 and in_flight <= max(REACH) and (scope.peers is not None or not scope.quick)
    sides = [ours(job)]
    for name, peer in PEERS.items():
        if "mini-coral" in peer.works and (all_peers or name == LOOP):
            sides.append(_peer(scope, name, job))
    what = f"mini-coral, {in_flight:,} in flight, latency {latency:g} s"
    runs = scope.times(3 if in_flight <= max(REACH) else 1)
    return Case(what, sides, partial(_rows, in_flight, latency), runs=runs, shown=True)


def _peer(scope: Scope, name: str, job: Job) -> Side:
    if name in FAST:
        return theirs(scope, name, job)
    enough = ENOUGH / 2 if scope.quick else ENOUGH
    return replace(theirs(scope, name, replace(job, enough=enough)), once=True)


def _tasks(scope: Scope, in_flight: int, latency: float) -> int:
    if not latency:
        return max(4_000, 5 * in_flight)
    if in_flight > max(REACH):
        return in_flight
    wide = in_flight >= max(REACH)
    return in_flight * ((2 if wide else 3) if scope.quick else (3 if wide else 5))


def _rows(in_flight: int, latency: float, outcome: Outcome) -> list[Row]:
    if not latency:
        figure = f"mini-coral calls/s, {in_flight:,} in flight, latency 0"
        return [compared(figure, outcome, "calls_per_second", peer=LOOP, reach=OPEN)]
    figure = f"mini-coral at {latency:g} s, {in_flight:,} in flight: share of the ideal calls/s"
    reach = at_least(REACH[in_flight]) if in_flight in REACH else OPEN
    peers = [name for name in outcome if name != "peerloom"]
    rows = [compared(figure, outcome, "share_of_ideal", peer=name, reach=reach) for name in peers]
    if in_flight == 1_000:
        figure = f"CPU s per 1,000 calls, {in_flight:,} in flight"
        key, reach = "cpu_seconds_per_1000_calls", at_most(0.10)
        rows += [compared(figure, outcome, key, peer=name, reach=reach) for name in peers]
    if in_flight == CENTRAL_AT:
        figure = f"paper, Coral: tokens/s against a central loop, {in_flight:,} in flight"
        central = CENTRAL if CENTRAL in outcome and outcome[CENTRAL].runs else LOOP
        rows.append(compared(figure, outcome, "tokens_per_second", peer=central, reach=times(6.8)))
    return rows
