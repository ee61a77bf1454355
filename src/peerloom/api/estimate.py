"""Estimate the usage and duration of a run over a whole source from a pilot run over some of its rows.

Tokens, calls and dollars are sums over tasks, so each is predicted as the pilot's mean times the number of
tasks. The bootstrap estimates the error: the pilot's tasks are resampled with replacement many times; each
time a whole run is simulated with such tasks, and the middle 90 % of the results of these runs is the
interval. It is widened by Student's t, because the plain bootstrap is too narrow for few tasks.

For the time, `in_flight` tasks run in parallel, each for its duration in the pilot, and the next one begins
when one has ended. This assumes that the model is as fast with `in_flight` tasks as it was in the pilot; a
sample of at least `in_flight` rows has measured that. A provider's rate limits are lower bounds of the time.
"""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from statistics import NormalDist, fmean
from typing import Any, NamedTuple

CONFIDENCE = 0.90

_RESAMPLES = 1_000
_MAX_SCHEDULED = 1_000  # the schedule of more tasks is approximated, except for its end
_LAST_TASKS = 256  # the number of tasks that are simulated at the end


class Work(NamedTuple):
    """The usage of one task; `seconds` is the time from its admission to its row."""

    prompt: float = 0.0
    completion: float = 0.0
    cached: float = 0.0
    calls: float = 0.0
    usd: float = 0.0
    seconds: float = 0.0


class Interval(NamedTuple):
    """The expected value, and the bounds of the confidence interval."""

    low: float
    expected: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunShape:
    """The size of a run, and the limits on its speed.

    Args:
        tasks: the number of tasks, including those of the pilot.
        in_flight: the number of tasks at once.
        start_seconds: the time before the first task is admitted and after the last one has ended.
        calls_per_minute: the provider's limit of calls.
        tokens_per_minute: the provider's limit of tokens.
    """

    tasks: int
    in_flight: int
    start_seconds: float = 0.0
    calls_per_minute: float = math.inf
    tokens_per_minute: float = math.inf


Estimate = Mapping[str, Interval]
"""An interval for each field of `Work`; `seconds` is the wall time of the run."""


def predict(pilot: Sequence[Work], shape: RunShape, seed: int = 0) -> Estimate:
    """Return the estimate for a run.

    Args:
        pilot: the pilot's tasks.
        shape: the shape of the run.
        seed: the seed of the bootstrap.

    Raises:
        ValueError: if the pilot has fewer than two tasks, and the run more: the variance is unknown.
    """
    if len(pilot) < min(2, shape.tasks):
        raise ValueError(f"{len(pilot)} tasks say nothing of how tasks differ: it takes 2")
    random = Random(seed)
    runs = [_run(pilot, random.choices(pilot, k=len(pilot)), shape, random) for _ in range(_RESAMPLES)]
    return {name: _interval([getattr(run, name) for run in runs], len(pilot)) for name in Work._fields}


def work_of(row: Mapping[str, Any]) -> Work:
    """Return the usage of the task of a row."""
    usage = row["usage"]
    return Work(
        usage["prompt"],
        usage["completion"],
        usage["cached"],
        usage["calls"],
        usage.get("usd", 0.0),
        row["timing"]["seconds"],
    )


def _run(pilot: Sequence[Work], sample: Sequence[Work], shape: RunShape, random: Random) -> Work:
    """Simulate a whole run: the pilot's own tasks, and further tasks distributed like the sample."""
    others = max(0, shape.tasks - len(pilot))
    deviation = random.gauss(0.0, math.sqrt(others))  # of their sum, in standard deviations of one task
    sums: list[float] = []
    for known, values in zip(zip(*pilot, strict=True), zip(*sample, strict=True), strict=True):
        mean = sum(values) / len(values)
        sigma = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
        sums.append(max(0.0, sum(known) + others * mean + deviation * sigma))
    work = Work(*sums)
    calls = 60.0 * work.calls / shape.calls_per_minute
    tokens = 60.0 * (work.prompt + work.completion) / shape.tokens_per_minute
    makespan = _makespan(work.seconds, pilot, sample, shape, random)
    return work._replace(seconds=shape.start_seconds + max(makespan, calls, tokens))


def _makespan(
    total: float, pilot: Sequence[Work], sample: Sequence[Work], shape: RunShape, random: Random
) -> float:
    """Return the time from the first task's admission to the last one's end; `total` sums all durations."""
    slots = min(shape.in_flight, shape.tasks)
    durations = [work.seconds for work in sample]
    if shape.tasks <= _MAX_SCHEDULED:
        known = [work.seconds for work in pilot]
        rest = random.choices(durations, k=max(0, shape.tasks - len(known)))
        tasks = random.sample([*known, *rest], shape.tasks)
        ends = tasks[:slots]
        heapq.heapify(ends)
        for seconds in tasks[slots:]:
            heapq.heapreplace(ends, ends[0] + seconds)
        return max(ends)
    # When the last task is admitted, each running one has some time left; longer ones are more likely to run.
    running = random.choices(durations, durations, k=min(slots, _LAST_TASKS)) if any(durations) else [0.0]
    left = [seconds * random.random() for seconds in running]
    return total / slots + max(left) - fmean(left)


def _interval(runs: Sequence[float], tasks: int) -> Interval:
    """Return the middle part of the simulated runs, widened by Student's t for few tasks."""
    tail = (1.0 - CONFIDENCE) / 2.0
    if tasks > 1:
        width = math.sqrt(tasks / (tasks - 1)) * _student(1.0 - tail, tasks - 1)
        tail = NormalDist().cdf(-width)
    ordered, last = sorted(runs), len(runs) - 1
    low, high = ordered[math.floor(tail * last)], ordered[math.ceil((1.0 - tail) * last)]
    return Interval(low, fmean(runs), high)


def _student(level: float, freedom: int) -> float:
    """Return a quantile of Student's t, by its expansion around the normal distribution."""
    z = NormalDist().inv_cdf(level)
    first = (z**3 + z) / 4.0
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96.0
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384.0
    return z + first / freedom + second / freedom**2 + third / freedom**3
