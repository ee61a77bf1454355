"""Rows of offloading and compression: bytes between two nodes for each task, with and without.

Two agents on two nodes say some characters each, in turn, so that every hop crosses the wire. What the
cluster says by itself is counted too. The texts are words of the file that `PEERLOOM_BENCH_TEXTS` names, best
of recorded replies, else our own.

And how often a large value crosses that a task brings along in its input: 1 MB of random bytes, as text. The
text is a third longer and cannot be made smaller than the bytes, so their number is what is counted by. The
node where the source is has it from the beginning: the other one is the only one to get it.

`WITHOUT` is what switches all of it off.
"""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from benchmarks.comparison.case import Case, Figures, Found, Outcome, Side
from benchmarks.comparison.job import Job, spec_of
from benchmarks.comparison.rows import OPEN, Reach, Row, at_most, fraction, missing
from benchmarks.comparison.sides import US, Scope
from benchmarks.harness.hosts import TwoHosts, two_hosts
from benchmarks.harness.process import OURS, Program, watched
from benchmarks.harness.run import scratch
from benchmarks.workloads.base import Rows, Workload, numbered
from benchmarks.workloads.texts import given

WITHOUT: Mapping[str, Any] = {"histories": 0, "compress": "never"}
TURNS = 6
VALUE = 1_000_000  # bytes
MORE = 4  # times the tasks, in full
LARGE = "how often a value of 1 MB crosses to a node that reads it"
PLAIN = f"{US} without"


def _values(count: int) -> Rows:
    for row in numbered(count):
        yield {**row, "value": b64encode(Random(row["number"]).randbytes(VALUE)).decode()}


TURNED = Workload("turns", numbered, spec={"turns": TURNS, "placement": "spread"})
VALUED = Workload("turns", _values, spec={"turns": TURNS, "placement": "spread"})


@dataclass(frozen=True)
class Talk:
    """A dialogue, and how many tasks have it.

    Args:
        name: of the turns, or of the value.
        size: characters of a turn.
        tasks: how many talk, in short.
        reach: of the bytes, as a share; with a value how often it crosses.
        workload: the rows.
        in_flight: tasks at once.
    """

    name: str
    size: int
    tasks: int
    reach: Reach
    workload: Workload = TURNED
    in_flight: int = 100


TALKS = [
    Talk("turns of 1 KB", 1_000, 2_000, fraction(0.8)),
    Talk("turns of 20 KB", 20_000, 300, fraction(0.4)),
    Talk("a value of 1 MB", 1_000, 24, at_most(1.05), VALUED, in_flight=8),
]


def cases(scope: Scope) -> list[Case]:
    """Return one case; each side has all its dialogues on the same cluster."""
    gap, sides = TwoHosts.missing(), list[Side]()
    shapes: dict[str, Mapping[str, Any]] = {US: {}, PLAIN: WITHOUT}
    for name, shape in shapes.items():
        sides.append(
            Side(name, None, gap) if gap else Side(name, partial(_crossed, 1 if scope.quick else MORE, shape))
        )
    return [Case("traffic between two nodes", sides, _rows, scope.times(3))]


async def _crossed(times: int, shape: Mapping[str, Any]) -> Figures:
    """Measure the bytes of a task and the tasks a second of each dialogue, on a new cluster of two nodes."""
    found = Figures()
    async with two_hosts() as hosts:
        for talk in TALKS:
            tasks = talk.tasks * times
            crossed, seconds = await _run(hosts, talk, tasks, shape)
            found[_bytes(talk)] = crossed / tasks
            found[_rate(talk)] = tasks / seconds
    return {**found, "crossings": found[_bytes(TALKS[-1])] / VALUE}


async def _run(hosts: TwoHosts, talk: Talk, tasks: int, shape: Mapping[str, Any]) -> tuple[int, float]:
    placed = {"address": hosts.environment["RAY_ADDRESS"], **shape}
    said = {"size": talk.size, "texts": given()}
    more = {**said, "shape": placed, "hosts": {"one": "near", "other": "far"}}
    job = Job(talk.workload, tasks, min(tasks, talk.in_flight), more=more, limit=300)
    program = Program([*hosts.on(hosts.near), *OURS.argv], hosts.environment)
    with scratch() as folder:
        spec = spec_of(job, folder, list(talk.workload.rows(tasks)))
        before = hosts.crossed()
        seen = await watched(program, spec, folder, limit=job.limit)
        return hosts.crossed() - before, seen.end - seen.begin


def _rows(outcome: Outcome) -> list[Row]:
    rows: list[Row] = []
    for talk in TALKS[:-1]:
        crossed = f"bytes between two nodes a task of {TURNS} {talk.name}, with offloading and compression"
        rows.append(_row(crossed, _bytes(talk), outcome, talk.reach))
        rows.append(_row(f"tasks/s over two nodes, {talk.name}", _rate(talk), outcome, OPEN))
    return [*rows, _row(LARGE, "crossings", outcome, TALKS[-1].reach)]


def _bytes(talk: Talk) -> str:
    return f"bytes_per_task, {talk.name}"


def _rate(talk: Talk) -> str:
    return f"tasks_per_second, {talk.name}"


def _row(figure: str, key: str, outcome: Outcome, reach: Reach) -> Row:
    mine, plain = outcome[US], outcome.get(PLAIN, Found())
    value, other = mine.get(key), plain.get(key)
    if value is None:
        return missing(figure, reach, mine.reason, "without")
    note = "" if other is not None else f"without not measured: {plain.reason}"
    return Row(figure, value, "without", other, reach, mine.spread(key), note)
