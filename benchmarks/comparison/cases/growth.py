"""Rows of growth: what a task costs when many are done, and what a hop costs when a dialogue is long."""

from functools import partial
from itertools import pairwise

from benchmarks.comparison.case import Case, Figures, Outcome, Side
from benchmarks.comparison.job import Job, measured
from benchmarks.comparison.rows import Row, at_most
from benchmarks.comparison.sides import US, Scope, compared, ours, theirs
from benchmarks.harness.process import OURS, Seen
from benchmarks.workloads.base import Workload, numbered

PLAIN_CALL = "raycall"
DIALOGUES = 300
SHORT, LONG, END = (
    10,
    200,
    240,
)  # turns; dialogues go on to the last, or the hops at 200 would pay for making rows
AT_FIVE = (2, 8)
AT_LENGTH = ((45, 55), (95, 105), (145, 155), (190, 199))


TASKS = Workload("growth", numbered)
DIALOGUE = Workload("long", numbered)
CALL = Workload("calls", numbered)


def cases(scope: Scope) -> list[Case]:
    """Return one case for the number of tasks and one for the length of dialogues."""
    counts = [1_000, 10_000, 100_000, *([] if scope.quick else [1_000_000])]
    job = Job(
        TASKS,
        counts[-1],
        1_000,
        more={"counts": counts},
        limit=3_600,
        every=0.1,
        derive=partial(each_task, counts),
    )
    return [
        Case(
            f"growth to {counts[-1]:,} tasks", [ours(job)], partial(_task_rows, counts), runs=scope.times(1)
        ),
        Case(
            f"growth to {LONG} turns",
            [Side(US, _dialogues), theirs(scope, PLAIN_CALL, Job(CALL, 1, 1))],
            _turn_rows,
            runs=scope.times(3),
        ),
    ]


def each_task(counts: list[int], seen: Seen) -> Figures:
    """Return the CPU time of a task between the moments at which so many were done."""
    moments = {int(count): float(moment) for count, moment in seen.said["moments"].items()}
    found = {
        f"cpu_us_to_{many}": seen.cpu.used(moments[few], moments[many]) / (many - few) * 1e6
        for few, many in pairwise(counts)
    }
    return {**found, "growth": found[f"cpu_us_to_{counts[-1]}"] / found[f"cpu_us_to_{counts[1]}"]}


def each_turn(windows: tuple[tuple[int, int], ...], seen: Seen) -> Figures:
    """Return the CPU time of a hop between the moments at which the dialogues had so many turns."""
    moments = {int(count): float(moment) for count, moment in seen.said["moments"].items()}
    hops = DIALOGUES * 1e-6  # so the figures are microseconds
    return {
        f"cpu_us_at_{few}": seen.cpu.used(moments[few], moments[many]) / ((many - few) * hops)
        for few, many in windows
    }


async def _dialogues() -> Figures:
    short = await measured(OURS, _dialogue(SHORT, (AT_FIVE,)))
    long = await measured(OURS, _dialogue(END, AT_LENGTH))
    five, last = short[f"cpu_us_at_{AT_FIVE[0]}"], long[f"cpu_us_at_{AT_LENGTH[-1][0]}"]
    curve = {f"us_{few}": long[f"cpu_us_at_{few}"] for few, _ in AT_LENGTH}
    return {"us_5": five, **curve, "long_by_short": last / five}


def _dialogue(turns: int, windows: tuple[tuple[int, int], ...]) -> Job:
    counts = [count for window in windows for count in window]
    more = {"turns": turns, "counts": counts, "placement": "spread"}
    return Job(DIALOGUE, DIALOGUES, DIALOGUES, more=more, every=0.1, derive=partial(each_turn, windows))


def _task_rows(counts: list[int], outcome: Outcome) -> list[Row]:
    figure = f"growth: CPU of a task, the last of {counts[-1]:,} against those from 1,000 to 10,000"

    def curve(found: Figures) -> str:
        parts = (f"{found[f'cpu_us_to_{count}']:,.0f} us to {count:,}" for count in counts[1:])
        return "CPU of a task: " + ", ".join(parts)

    return [compared(figure, outcome, "growth", reach=at_most(1.05), note=curve)]


def _turn_rows(outcome: Outcome) -> list[Row]:
    figure = f"growth: CPU of a hop at {LONG} turns of 1 KB against 5, spread"
    return [compared(figure, outcome, "long_by_short", peer=PLAIN_CALL, reach=at_most(2), note=_turn_curve)]


def _turn_curve(found: Figures) -> str:
    points = [5, *(few for few, _ in AT_LENGTH)]
    return "CPU of a hop: " + ", ".join(f"{found[f'us_{turn}']:,.0f} us at {turn}" for turn in points)
