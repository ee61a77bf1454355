"""What a run over a whole source will come to, from the tasks of a pilot run over some of its rows.

Tokens, calls and dollars are sums over tasks, so each is predicted as the pilot's mean times the number of
tasks. How wrong that may be is found by the bootstrap: the pilot's tasks are drawn again, with replacement,
many times; each time a whole run is made of tasks like those, and the middle 90 % of what such runs come to
is the interval. It is widened as Student's t demands for few tasks, of which the plain bootstrap is too
sure.

Time: as many tasks as `in_flight` says are worked on side by side, each for as long as it took in the
pilot, and the next one begins when one has ended. That supposes that the model answers as quickly with so
many calls at once as it did in the pilot, where there were no more tasks than in the sample: one as large
as `in_flight` has measured it. A provider's limits are bounds below which no run ends.
"""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from statistics import NormalDist, fmean
from typing import Any, NamedTuple

CONFIDENCE = 0.90

_DRAWS = 1_000
_PLAYED = 1_000  # tasks whose schedule is played through; with more, only its end is
_ENDING = 256  # tasks that are looked at for that end


class Work(NamedTuple):
    """What one task came to. `seconds` are from its admission to its row."""

    prompt: float = 0.0
    completion: float = 0.0
    cached: float = 0.0
    calls: float = 0.0
    usd: float = 0.0
    seconds: float = 0.0


class Interval(NamedTuple):
    """What is expected, and between what it will be in nine of ten cases."""

    low: float
    expected: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How the run will be.

    Args:
        tasks: that it has, those of the pilot included.
        in_flight: tasks at once.
        start_seconds: before the first task is admitted, and after the last one has ended.
        calls_per_minute: that the provider allows.
        tokens_per_minute: as well.
    """

    tasks: int
    in_flight: int
    start_seconds: float = 0.0
    calls_per_minute: float = math.inf
    tokens_per_minute: float = math.inf


Estimate = Mapping[str, Interval]
"""By figure, named as in `Work`; `seconds` are the wall time of the run."""


def predict(pilot: Sequence[Work], shape: Shape, seed: int = 0) -> Estimate:
    """What a run will come to.

    Args:
        pilot: its tasks.
        shape: of the run.
        seed: of the bootstrap.

    Raises:
        ValueError: if the pilot has less than two tasks, and the run more: nothing says how they differ.
    """
    if len(pilot) < min(2, shape.tasks):
        raise ValueError(f"{len(pilot)} tasks say nothing of how tasks differ: it takes 2")
    random = Random(seed)
    runs = [_run(pilot, random.choices(pilot, k=len(pilot)), shape, random) for _ in range(_DRAWS)]
    return {name: _interval([getattr(run, name) for run in runs], len(pilot)) for name in Work._fields}


def work_of(row: Mapping[str, Any]) -> Work:
    """What the task of a row came to."""
    usage = row["usage"]
    return Work(
        usage["prompt"],
        usage["completion"],
        usage["cached"],
        usage["calls"],
        usage.get("usd", 0.0),
        row["timing"]["seconds"],
    )


def _run(pilot: Sequence[Work], like: Sequence[Work], shape: Shape, random: Random) -> Work:
    """A whole run: the pilot's own tasks, which are known, and others like those of `like`."""
    others = max(0, shape.tasks - len(pilot))
    luck = random.gauss(0.0, math.sqrt(others))  # how far the sum of so many is from what is expected
    sums: list[float] = []
    for known, values in zip(zip(*pilot, strict=True), zip(*like, strict=True), strict=True):
        mean = sum(values) / len(values)
        spread = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
        sums.append(max(0.0, sum(known) + others * mean + luck * spread))
    work = Work(*sums)
    calls = 60.0 * work.calls / shape.calls_per_minute
    tokens = 60.0 * (work.prompt + work.completion) / shape.tokens_per_minute
    busy = _busy(work.seconds, pilot, like, shape, random)
    return work._replace(seconds=shape.start_seconds + max(busy, calls, tokens))


def _busy(total: float, pilot: Sequence[Work], like: Sequence[Work], shape: Shape, random: Random) -> float:
    """Seconds from the first task's admission to the last one's end; all together take `total`."""
    places = min(shape.in_flight, shape.tasks)
    taken = [work.seconds for work in like]
    if shape.tasks <= _PLAYED:
        known = [work.seconds for work in pilot]
        rest = random.choices(taken, k=max(0, shape.tasks - len(known)))
        tasks = random.sample([*known, *rest], shape.tasks)
        ends = tasks[:places]
        heapq.heapify(ends)
        for seconds in tasks[places:]:
            heapq.heapreplace(ends, ends[0] + seconds)
        return max(ends)
    # When the last task is admitted, those under way have a part of their time left; longer ones are more.
    ending = random.choices(taken, taken, k=min(places, _ENDING)) if any(taken) else [0.0]
    left = [seconds * random.random() for seconds in ending]
    return total / places + max(left) - fmean(left)


def _interval(runs: Sequence[float], tasks: int) -> Interval:
    """The middle of what was drawn, as far out as Student's t goes with so few tasks."""
    outside = (1.0 - CONFIDENCE) / 2.0
    if tasks > 1:
        wide = math.sqrt(tasks / (tasks - 1)) * _student(1.0 - outside, tasks - 1)
        outside = NormalDist().cdf(-wide)
    ordered, last = sorted(runs), len(runs) - 1
    low, high = ordered[math.floor(outside * last)], ordered[math.ceil((1.0 - outside) * last)]
    return Interval(low, fmean(runs), high)


def _student(level: float, freedom: int) -> float:
    """A quantile of Student's t, by its expansion around the normal law."""
    z = NormalDist().inv_cdf(level)
    first = (z**3 + z) / 4.0
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96.0
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384.0
    return z + first / freedom + second / freedom**2 + third / freedom**3
