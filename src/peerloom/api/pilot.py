"""A pilot run: some rows of a plan's source, worked on for real, to say what all of them will come to.

It asks the model anew, whatever the cache holds, since else it would measure the cache; but what it is
answered is kept there, so that the run itself need not ask it again.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peerloom.api.estimate import Estimate, Shape, predict, work_of
from peerloom.api.plan import Plan
from peerloom.api.runner import drive
from peerloom.errors import ConfigError, PeerloomError
from peerloom.services.llm.client.client import ReplicatedClientSpec
from peerloom.services.llm.client.service import ClientSpec, LLMService, Moved
from peerloom.services.llm.limits.service_quota import Limits
from peerloom.services.processes.spawn import Spawner
from peerloom.sink.read import read_rows
from peerloom.source.sample import take_sample


@dataclass(frozen=True)
class Forecast:
    """What a run will come to, and what that is concluded from.

    Attributes:
        rows: of the source.
        tasks: of the run: rows times trials.
        sampled: rows of the pilot.
        summary: of the pilot.
        priced: whether it is known what calls cost; else `usd` of the estimate says nothing.
        estimate: for the whole run.
    """

    rows: int
    tasks: int
    sampled: int
    summary: dict[str, Any]
    priced: bool
    estimate: Estimate


def forecast(plan: Plan, sample: int = 20, run_dir: Path | None = None, **how: Any) -> Forecast:
    """Run a pilot, and conclude from it.

    Args:
        plan: what is to be run.
        sample: rows of the pilot, one trial of each.
        run_dir: where it is kept; by default it is removed. One that is there already is not run again.
        how: further arguments of `execute`.

    Raises:
        ConfigError: if the pilot has too few tasks to conclude anything from.
        PeerloomError: what a run raises; if the pilot failed, its reason.
    """
    source, rows = take_sample(plan.source, sample, plan.settings.seed)
    cache = plan.settings.cache
    if cache is not None:
        cache = dataclasses.replace(cache, lookup=False)
    settings = dataclasses.replace(plan.settings, trials=1, cache=cache)
    noting = _Noting(plan.llm)
    pilot = dataclasses.replace(plan, source=source, llm=noting, settings=settings)
    with ExitStack() as stack:
        if run_dir is None:
            run_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peerloom-"))) / "pilot"
        result = drive(pilot, run_dir=run_dir, **how)
        if result.how == "failed":
            raise PeerloomError(
                f"nothing can be estimated: {result.summary.get('error', 'every row failed')}"
            )
        timed = [(work_of(row), row["timing"]) for row in read_rows(run_dir)]
    tasks = rows * plan.settings.trials
    works = [work for work, _ in timed]
    span = max((each["finished"] for _, each in timed), default=0.0) - min(
        (each["started"] for _, each in timed), default=0.0
    )
    start = max(0.0, result.summary["wall_seconds"] - span)
    try:
        estimate = predict(works, _shape(tasks, settings.in_flight, start, noting.fleets), settings.seed)
    except ValueError as error:
        raise ConfigError(f"the pilot ended ({result.how}) with too few rows: {error}") from error
    summary = dict(result.summary)
    return Forecast(rows, tasks, len(works), summary, "usd" in summary, estimate)


def _shape(tasks: int, in_flight: int, start: float, fleets: Sequence[ReplicatedClientSpec]) -> Shape:
    """The run's shape. Limits of several services do not count: nothing says how calls are divided."""
    limits = fleets[0].limits if len(fleets) == 1 else Limits()
    return Shape(
        tasks=tasks,
        in_flight=min(in_flight, limits.concurrency or in_flight),
        start_seconds=start,
        calls_per_minute=limits.requests_per_minute or float("inf"),
        tokens_per_minute=limits.tokens_per_minute or float("inf"),
    )


class _Noting:
    """The plan's service; notes what is behind it."""

    def __init__(self, service: LLMService) -> None:
        self._service = service
        self.fleets: Sequence[ReplicatedClientSpec] = ()

    async def start(self, spawner: Spawner, notify: Callable[[str], None], log_dir: Path) -> ClientSpec:
        client = await self._service.start(spawner, notify, log_dir)
        self.fleets = client.fleets
        return client

    async def watch(self, moved: Moved) -> None:
        await self._service.watch(moved)

    async def stop(self) -> None:
        await self._service.stop()
