"""Run a pilot over some rows of a plan's source, and estimate the whole run from it.

The pilot does not read the cache, since otherwise it would measure the cache; but its replies are stored
there, so that the run itself does not pay for them again.
"""

import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peerloom.api.estimate import Estimate, RunShape, predict, work_of
from peerloom.api.plan import Plan
from peerloom.api.runner import drive
from peerloom.errors import ConfigError, PeerloomError
from peerloom.runtime.services import RunServices
from peerloom.services.llm.client.client import ReplicatedClientSpec
from peerloom.services.llm.client.service import ClientSpec, LLMService
from peerloom.services.llm.limits.service_quota import Limits
from peerloom.services.processes.spawn import Spawner
from peerloom.sink.read import read_rows, read_totals
from peerloom.sink.rundir.state import read_state
from peerloom.source.sample import take_sample
from peerloom.task import FAILED


@dataclass(frozen=True)
class Forecast:
    """The estimate for a run, and the pilot it is based on.

    Attributes:
        rows: the number of rows of the source.
        tasks: the number of tasks of the run: rows times trials.
        sampled: the number of rows of the pilot.
        summary: the summary of the pilot.
        priced: whether the prices of calls are known; otherwise `usd` of the estimate is meaningless.
        estimate: the estimate for the whole run.
    """

    rows: int
    tasks: int
    sampled: int
    summary: dict[str, Any]
    priced: bool
    estimate: Estimate


def forecast(plan: Plan, sample: int = 20, run_dir: Path | None = None, **options: Any) -> Forecast:
    """Run a pilot, and return the estimate for the whole run.

    Args:
        plan: the plan of the whole run.
        sample: the number of rows of the pilot, with one trial of each.
        run_dir: the directory of the pilot, whose run is resumed if it exists; by default a temporary
            one, which is kept if rows failed.
        options: further arguments of `execute`.

    Raises:
        ConfigError: if the pilot has too few tasks for an estimate.
        PeerloomError: if the pilot failed, with its reason, or for any error of a run.
    """
    source, rows = take_sample(plan.source, sample, plan.settings.seed)
    cache = plan.settings.cache
    if cache is not None:
        cache = dataclasses.replace(cache, lookup=False)
    settings = dataclasses.replace(plan.settings, trials=1, cache=cache)
    service = _ObservedService(plan.services.llm)
    services = RunServices(service, plan.services.others)
    pilot = dataclasses.replace(plan, source=source, services=services, settings=settings)
    with kept_or_temporary(run_dir) as directory:
        result = drive(pilot, run_dir=directory, **options)
        if result.how == "failed":
            raise PeerloomError(
                f"nothing can be estimated: {result.summary.get('error', 'every row failed')}"
            )
        pilot_rows = [(work_of(row), row["timing"]) for row in read_rows(directory)]
    tasks = rows * plan.settings.trials
    works = [work for work, _ in pilot_rows]
    span = max((timing["finished"] for _, timing in pilot_rows), default=0.0) - min(
        (timing["started"] for _, timing in pilot_rows), default=0.0
    )
    start = max(0.0, result.summary["wall_seconds"] - span)
    try:
        estimate = predict(works, _shape(tasks, settings.in_flight, start, service.fleets), settings.seed)
    except ValueError as error:
        raise ConfigError(f"the pilot ended ({result.how}) with too few rows: {error}") from error
    summary = dict(result.summary)
    return Forecast(rows, tasks, len(works), summary, "usd" in summary, estimate)


@contextmanager
def kept_or_temporary(run_dir: Path | None) -> Generator[Path]:
    """Yield the run directory; if there is none, a temporary one.

    The temporary one is removed if all its rows are good; otherwise messages of the run refer to it.
    """
    if run_dir is not None:
        yield run_dir
        return
    scratch = Path(tempfile.mkdtemp(prefix="peerloom-"))
    directory = scratch / "run"
    try:
        yield directory
    finally:
        if not _is_needed(directory):
            shutil.rmtree(scratch)


def _is_needed(run_dir: Path) -> bool:
    """Return whether a session has begun that did not finish, or a row failed."""
    state = read_state(run_dir)
    return state is not None and (state.how != "finished" or FAILED in read_totals(run_dir).outcomes)


def _shape(tasks: int, in_flight: int, start: float, fleets: Sequence[ReplicatedClientSpec]) -> RunShape:
    """Return the run's shape. Limits of several services are ignored: how calls are divided is unknown."""
    limits = fleets[0].limits if len(fleets) == 1 else Limits()
    return RunShape(
        tasks=tasks,
        in_flight=min(in_flight, limits.concurrency or in_flight),
        start_seconds=start,
        calls_per_minute=limits.requests_per_minute or float("inf"),
        tokens_per_minute=limits.tokens_per_minute or float("inf"),
    )


class _ObservedService:
    """Wrapper of the plan's service that stores the specs of its clients."""

    def __init__(self, service: LLMService) -> None:
        self._service, self.watch, self.stop = service, service.watch, service.stop
        self.fleets: Sequence[ReplicatedClientSpec] = ()

    async def start(
        self, name: str, spawner: Spawner, notify: Callable[[str], None], log_dir: Path
    ) -> ClientSpec:
        client = await self._service.start(name, spawner, notify, log_dir)
        self.fleets = client.fleets
        return client
