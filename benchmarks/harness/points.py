"""Settings and points: a benchmark measures one point for each setting."""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any, Literal

from benchmarks.harness.output import significant
from peerloom.errors import PeerloomError

Placement = Literal["spread", "packed"]
Without = Literal["journal", "heartbeats", "affinity"]


class BenchError(PeerloomError):
    """A benchmark went wrong in a way that makes its figures worthless."""


@dataclass(frozen=True)
class Setting:
    """A setting to measure: where the roles run, and how many tasks, at once and in all.

    `without` is what is switched off, to see what it costs.
    """

    placement: Placement
    in_flight: int
    tasks: int
    without: Without | None = None


@dataclass(frozen=True)
class Point:
    """Figures that all benchmarks have. What a hop is: `benchmarks.workloads.hops`."""

    bench: str
    placement: Placement
    in_flight: int
    tasks: int
    without: Without | None
    hops_per_task: float
    tasks_per_second: float

    def as_json(self) -> dict[str, Any]:
        """Return the point as `--json` prints it, with five significant digits."""
        return {name: significant(value) for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class HopsPoint(Point):
    """A point of `python -m benchmarks hops`."""

    hops_per_second: float


@dataclass(frozen=True)
class CallsPoint(Point):
    """A point of `python -m benchmarks calls`.

    `latency_seconds` is the simulated model's. `share_of_ideal` compares with a client that always has
    `in_flight` calls waiting, from the first call to the last. The CPU time is that of all processes but
    the model's, in the same interval.
    """

    latency_seconds: float
    calls_per_second: float
    share_of_ideal: float
    cpu_seconds_per_1000_calls: float


@dataclass(frozen=True)
class RecoveryPoint(Point):
    """A point of `python -m benchmarks recovery`: seconds from a peer's death, and the peak memory in MiB."""

    noticed_seconds: float
    replaced_seconds: float
    admitted_seconds: float
    calls_repaid: float
    peak_megabytes: float


@dataclass(frozen=True)
class AffinityPoint(Point):
    """A point of `python -m benchmarks affinity`.

    `prefix_hit_rate` is the share of the prompt tokens that a server had in its cache, `evaluated_tokens` are
    the others; `tokens_per_second` are those of the replies.
    """

    prefix_hit_rate: float
    prompt_tokens: float
    evaluated_tokens: float
    tokens_per_second: float
    wall_seconds: float


@dataclass(frozen=True)
class Bench:
    """A benchmark: the settings it measures unless told otherwise, and how it measures one of them once.

    `compared` is what it measures each setting without, too: the one thing that it is about.
    """

    name: str
    placements: tuple[Placement, ...]
    in_flight: tuple[int, ...]
    tasks: Callable[[int], int]
    runs: int
    run: Callable[[Setting], Coroutine[Any, Any, Point]]
    compared: Without | None = None

    def settings(
        self, in_flight: int | None = None, tasks: int | None = None, placement: Placement | None = None
    ) -> list[Setting]:
        """Return all settings, or those asked for."""
        return [
            Setting(place, width, tasks or self.tasks(width))
            for place in ((placement,) if placement else self.placements)
            for width in ((in_flight,) if in_flight else self.in_flight)
        ]


def middle(points: Sequence[Point]) -> Point:
    """Return the medians of several runs of one setting, figure by figure."""
    figures = [asdict(point) for point in points]
    floats = [name for name, value in figures[0].items() if isinstance(value, float)]
    return replace(points[0], **{name: median(each[name] for each in figures) for name in floats})
