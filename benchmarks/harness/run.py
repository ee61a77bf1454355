"""Runs a program on Ray in a directory of its own, and reads from the rows what came of it.

The clock starts with the first task's admission, which its row says, and stops with the last write of a
sink, which the file system says: starting and stopping processes is left out, every commit is in.
"""

import math
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness.points import Bench, BenchError, Setting
from peerloom.events import Hooks
from peerloom.runtime.driver.run import Run
from peerloom.runtime.driver.session import Session
from peerloom.runtime.program import Program
from peerloom.runtime.services import RunServices
from peerloom.runtime.settings import RunSettings
from peerloom.services.llm.client.service import LLMService
from peerloom.sink.layout import INDEX
from peerloom.sink.read import read_rows
from peerloom.sink.rundir.directory import RunDir
from peerloom.source.base import Source
from peerloom.task import COMPLETED, FILTERED

RUNS = Path("runs")
NEVER = 1e6  # seconds


class Work(NamedTuple):
    """The work of a run: its tasks and turns, and Unix seconds of the first admission and the last commit."""

    tasks: int
    turns: int
    begin: float
    end: float

    @property
    def seconds(self) -> float:
        """Seconds from the first admission to the last commit."""
        return self.end - self.begin

    @property
    def hops(self) -> int:
        """Hops: each turn begins with one, and one more takes each task to its sink."""
        return self.turns + self.tasks


@contextmanager
def scratch() -> Generator[Path]:
    """Make a directory on the disk that runs are normally written to, and remove it afterwards."""
    RUNS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=RUNS) as path:
        yield Path(path).absolute()


async def perform(
    program: Program,
    source: Source,
    llm: LLMService,
    setting: Setting,
    *,
    path: Path,
    name: str,
    hooks: Sequence[Hooks] = (),
    shape: Mapping[str, Any] | None = None,
) -> Work:
    """Run the program over the source, on a Ray cluster of its own, in a new run directory `path`.

    Args:
        program: workflow and agents.
        source: its rows.
        llm: the model.
        setting: placement, tasks, how many at once.
        path: of the run directory.
        name: of the recipe.
        hooks: who watches.
        shape: more of `RunSettings`.

    Raises:
        BenchError: if not every task was completed: there would be nothing to compare.
        PeerloomError: whatever a run raises.
    """
    settings = RunSettings(
        engine="ray",
        placement=setting.placement,
        in_flight=setting.in_flight,
        address="local",
        journal=setting.without != "journal",
        heartbeat_seconds=NEVER if setting.without == "heartbeats" else RunSettings.heartbeat_seconds,
    )
    settings = replace(settings, **(shape or {}))
    run_dir = RunDir.claim(path)
    try:
        await Run(
            program, source, RunServices(llm), settings, Session(run_dir), recipe=name, hooks=hooks
        ).execute()
    finally:
        run_dir.release()
    return work_in(path, setting.tasks)


def common(bench: Bench, setting: Setting, work: Work) -> dict[str, Any]:
    """Return the figures that all points have."""
    return {
        "bench": bench.name,
        "placement": setting.placement,
        "in_flight": setting.in_flight,
        "tasks": setting.tasks,
        "without": setting.without,
        "hops_per_task": work.hops / work.tasks,
        "tasks_per_second": work.tasks / work.seconds,
    }


def work_in(run_dir: Path, tasks: int) -> Work:
    """Return the work of a run, as its rows tell it.

    Raises:
        BenchError: if they are not `tasks` rows, each of another task, that were completed or filtered.
    """
    ids: set[str] = set()
    rows, done, turns, first = 0, 0, 0, math.inf
    for row in read_rows(run_dir):
        rows += 1
        if row["outcome"] in (COMPLETED, FILTERED):
            done += 1
            ids.add(row["id"])
        turns += row["timing"]["hops"]
        first = min(first, row["timing"]["started"])
    if not tasks == len(ids) == rows:
        raise BenchError(f"{tasks} tasks gave {rows} rows, {done} of them completed")
    last = max(file.stat().st_mtime for file in (run_dir / INDEX).iterdir())
    return Work(tasks, turns, first, last)
