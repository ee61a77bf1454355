"""Rows of the paper's parallelism ablation: partitions of the source, and replicas of the peers.

How fast one feeder or one sink can be is its CPU time for each task, turned round: it is one process.
"""

from benchmarks.comparison.case import Case, Figures, Outcome
from benchmarks.comparison.job import Job
from benchmarks.comparison.rows import OPEN, Row, at_least, missing
from benchmarks.comparison.sides import Scope, compared, ours
from benchmarks.harness.process import Seen
from benchmarks.workloads.base import Workload, numbered
from benchmarks.workloads.hops import HOPS

IN_FLIGHT = 1_000
PARTITIONS = (1, 2, 5, 10, 20)
REPLICAS = (1, 2, 4, 8)
LEAST = 20_000  # tasks/s


ONE_TURN = Workload("one-turn", numbered)


def cases(scope: Scope) -> list[Case]:
    """Return a case for each curve."""
    partitions = (1, 5) if scope.quick else PARTITIONS
    replicas = (1, 2) if scope.quick else REPLICAS
    tasks = 20_000 if scope.quick else 60_000
    jobs = {
        f"partitions={count}": Job(
            ONE_TURN, tasks, IN_FLIGHT, more={"shape": {"partitions": count}}, every=0.2, derive=one_member
        )
        for count in partitions
    }
    peers = {
        f"replicas={count}": Job(HOPS, tasks // 4, IN_FLIGHT, more={"shape": {"peers": count}})
        for count in replicas
    }
    runs = scope.times(3)
    return [
        Case("partitions", [ours(job, name) for name, job in jobs.items()], _partition_rows, runs=runs),
        Case("replicas", [ours(job, name) for name, job in peers.items()], _replica_rows, runs=runs),
    ]


def one_member(seen: Seen) -> Figures:
    """Return the tasks a second at which all feeders together, and all sinks, would need a whole core."""
    found: Figures = {}
    pids: dict[str, int] = seen.said["members"]
    for kind in ("feeder", "sink"):
        used = [
            seen.cpu.used(seen.begin, seen.end, pid) for name, pid in pids.items() if name.startswith(kind)
        ]
        found[f"{kind}_limit"] = seen.said["tasks"] / max(1e-9, sum(used)) if used else 0.0
    return found


def _partition_rows(outcome: Outcome) -> list[Row]:
    first = next(iter(outcome))
    figure = f"partitions, {IN_FLIGHT:,} in flight in all: most tasks/s against {first}"
    return [
        _curve(figure, outcome, "tasks_per_second"),
        compared(
            "tasks/s that one feeder can admit", outcome, "feeder_limit", reach=at_least(LEAST), us=first
        ),
        compared("tasks/s that one sink can commit", outcome, "sink_limit", reach=at_least(LEAST), us=first),
    ]


def _replica_rows(outcome: Outcome) -> list[Row]:
    figure = f"replicas, {IN_FLIGHT:,} in flight in all: most hops/s against {next(iter(outcome))}"
    return [_curve(figure, outcome, "hops_per_second")]


def _curve(figure: str, outcome: Outcome, key: str) -> Row:
    """Compare the best of some settings with the first."""
    points = {name: found.get(key) for name, found in outcome.items()}
    there = {name: value for name, value in points.items() if value is not None}
    first = next(iter(outcome))
    if first not in there:
        return missing(figure, OPEN, outcome[first].reason, first)
    note = ", ".join(f"{name} {value:,.0f}" for name, value in there.items())
    return Row(figure, max(there.values()), first, there[first], note=note)
