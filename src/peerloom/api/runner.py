"""`run` and `arun`, and the execution of a plan that they share with the command line."""

import asyncio
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, cast

import uvloop

from peerloom.agents.base import Agent
from peerloom.api.interrupts import Interrupts
from peerloom.api.plan import Model, Plan, Rows, make_plan
from peerloom.api.result import Ended, RunResult
from peerloom.config.nearest import did_you_mean
from peerloom.control.server import Control
from peerloom.errors import ConfigError, EngineError
from peerloom.events import Hooks, Notice, RunFinished
from peerloom.observe import LogHooks, open_display
from peerloom.observe.console import open_console
from peerloom.runtime.driver.conclusion import first_error
from peerloom.runtime.driver.run import Run
from peerloom.runtime.driver.session import Session
from peerloom.runtime.program import Program
from peerloom.runtime.threads import to_its_end
from peerloom.sink.export.writer import export_parquet
from peerloom.sink.rundir.directory import RunDir
from peerloom.terminal.streams import reopen_closed
from peerloom.workflow import Workflow


class Options(TypedDict, total=False):
    """The options of `run` and `arun`. Whatever is left out keeps the configuration's default.

    `source` is a path, a pattern, several of them, rows (any iterable of mappings), or a source object.
    `llm` is a group's name (`"llamacpp"`, `"openai"`, `"simulated"`), a service object, or a script as
    `ScriptedService` takes it: a list of replies, say, or a function from request to reply. `config` is
    any other key of the configuration, with dots: `{"llm.latency": 0.1, "recipe.max_rounds": 2}`.
    `max_failed` is how many rows (a whole number), or which share of them (0.2), may fail before the run
    stops, with `how` as `failed`; by default it stops when its first 20 rows all failed.
    `check_row` raises `RowError` for rows that the agents could not work on. `progress=False` shows
    neither the run's progress nor its warnings on stderr.

    If `run_dir` holds a run already, it goes on where that was: finished rows are kept, missing ones done,
    with `retry_failed` failed ones too. `fresh` replaces it instead.
    """

    source: Rows
    llm: Model
    engine: Literal["ray", "local"]
    placement: Literal["packed", "spread"]
    peers: int | None
    in_flight: int | None
    limit: int | None
    trials: int
    seed: int
    max_failed: float | None
    config: Mapping[str, Any]
    config_dir: str | os.PathLike[str]
    check_row: Callable[[Any], None]
    run_dir: str | os.PathLike[str]
    fresh: bool
    retry_failed: bool
    progress: bool
    hooks: Sequence[Hooks]


_KEYS = ("engine", "placement", "peers", "in_flight", "limit", "trials", "seed", "max_failed")


def run(
    recipe: str | None = None,
    *,
    workflow: Workflow | None = None,
    agents: Mapping[str, Agent] | None = None,
    **options: Unpack[Options],
) -> RunResult:
    """Run a recipe, or a workflow with its agents, to the end.

    Works in a notebook too, where it runs in a thread of its own. Ctrl-C drains the run and returns
    what is finished (`how` is `drained`); a second one stops it at once.

    Args:
        recipe: a recipe's name, import path, or the path of a `run.yaml`.
        workflow: who acts when, instead of a recipe's.
        agents: who fills each role of the workflow.
        options: see `Options`.

    Raises:
        UsageError: before anything is started, naming what is wrong; a `RunDirError` names what differs
            from the run that is in `run_dir`.
        ServiceError: if the model cannot be started or dies; rows written so far are kept.
        EngineError: if processes cannot be started.
    """
    plan = _plan(recipe, workflow, agents, options)
    return drive(plan, **_execution(options))


async def arun(
    recipe: str | None = None,
    *,
    workflow: Workflow | None = None,
    agents: Mapping[str, Agent] | None = None,
    **options: Unpack[Options],
) -> RunResult:
    """As `run`, in the running event loop; interruptions are the caller's business."""
    plan = await asyncio.to_thread(_plan, recipe, workflow, agents, options)
    return await execute(plan, **_execution(options))


def drive(plan: Plan, **execution: Any) -> RunResult:
    """Execute a plan in an event loop of its own, heeding Ctrl-C; see `execute` for the arguments.

    Raises:
        KeyboardInterrupt: if it was interrupted before the first task, or for the third time.
    """
    reopen_closed()  # before the event loop opens its own files
    interrupts = Interrupts()

    async def work() -> RunResult:
        with interrupts.listening():
            return await execute(plan, interrupts=interrupts, **execution)

    def whole() -> RunResult:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(work())
        except asyncio.CancelledError:
            if not interrupts.hits:
                raise EngineError(
                    "the run was cancelled by code in its own process, such as an agent that cancels all "
                    "tasks; with engine=ray agents run in other processes"
                ) from None
            raise KeyboardInterrupt from None
        except SystemExit as error:
            raise EngineError(
                f"code in the process of the run called sys.exit({error.code!r}) outside of an agent's turn, "
                "in a background task or a callback; with engine=ray agents run in other processes"
            ) from error

    if not _in_event_loop():
        return whole()
    with ThreadPoolExecutor(1, "peerloom") as thread:
        result = thread.submit(whole)
        while True:
            try:
                return result.result()
            except KeyboardInterrupt:
                if result.done():
                    raise
                interrupts.hit()


async def execute(
    plan: Plan,
    *,
    run_dir: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    retry_failed: bool = False,
    start_over: bool = True,
    progress: bool = True,
    hooks: Sequence[Hooks] = (),
    interrupts: Interrupts | None = None,
) -> RunResult:
    """Execute a plan, or go on with it if its run directory holds a part of it.

    Args:
        plan: what to run.
        run_dir: where to write; by default a new directory below `runs/`.
        fresh: replace an earlier run in that directory.
        retry_failed: do its failed rows again.
        start_over: replace another run in that directory if it has done nothing yet.
        progress: show the run and its warnings on stderr.
        hooks: others who watch.
        interrupts: what the run is attached to, so that it can be drained.

    Raises:
        RunDirError: if the directory is taken, or holds another run.
        SinkError: if with `sink.format=parquet` that cannot be written; the rows themselves are there.
        PeerloomError: see `Run.execute`.
    """
    claimed = RunDir.claim(run_dir or default_run_dir(plan.name), fresh=fresh)
    ended, control = _Ended(), Control()
    watching: list[Hooks] = [LogHooks(claimed.log), ended, control, *hooks]
    with ExitStack() as stack:
        stack.push(claimed)
        fingerprint = await asyncio.to_thread(plan.fingerprint)
        session = Session(claimed, fingerprint, retry_failed=retry_failed, start_over=start_over)
        if progress:
            watching.append(stack.enter_context(open_display(open_console(stderr=True))))
        if interrupts is not None:
            watching.append(interrupts)
        run = Run(
            plan.program,
            plan.source,
            plan.llm,
            plan.settings,
            session,
            recipe=plan.name,
            hooks=watching,
            config_yaml=plan.yaml,
        )
        if interrupts is not None:
            interrupts.attach(run, lambda text: _tell(watching, text))
        async with control.serving(run, claimed):
            summary = await _executed(run)
        if plan.config.sink.format == "parquet":
            if interrupts is not None:
                interrupts.detach()
            await _to_parquet(claimed.path)
    return RunResult(claimed.path, ended.how, summary)


async def _executed(run: Run) -> dict[str, Any]:
    try:
        return await run.execute()
    except ExceptionGroup as group:
        error = first_error(group)
        raise EngineError(f"the run broke off: {type(error).__name__}: {error}") from group


def default_run_dir(name: str) -> Path:
    """`runs/<name>-<date>-<short id>`, a directory that does not exist yet."""
    safe = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "run"
    return Path("runs") / f"{safe}-{time.strftime('%Y%m%d')}-{secrets.token_hex(3)}"


async def _to_parquet(run_dir: Path) -> None:
    """Export in a thread, which a cancellation ends, and waits for."""
    task = asyncio.current_task()

    def on_row() -> None:
        if task is not None and task.cancelling():
            raise _Cancelled

    await to_its_end(export_parquet, run_dir, on_row)


class _Cancelled(Exception):
    """Ends the export; nobody hears of it, for the cancellation itself comes first."""


class _Ended(Hooks):
    """Remembers how the run ended."""

    how: Ended = "finished"

    def run_finished(self, event: RunFinished) -> None:
        if event.how in ("drained", "suspended", "failed"):
            self.how = event.how


def _plan(
    recipe: str | None, workflow: Workflow | None, agents: Mapping[str, Agent] | None, options: Options
) -> Plan:
    for name in options:
        if name not in Options.__annotations__:
            known = list(Options.__annotations__)
            raise ConfigError(
                f"run() has no option {name!r}.{did_you_mean(name, known)} Other keys go into config={{...}}"
            )
    if (workflow is None) != (agents is None):
        raise ConfigError("workflow= and agents= belong together: one of them is missing")
    program = None
    if workflow is not None and agents is not None:
        program = Program(workflow, agents, options.get("check_row"))
    given = cast("dict[str, Any]", options)
    return make_plan(
        recipe,
        program=program,
        source=options.get("source"),
        llm=options.get("llm"),
        values={**options.get("config", {}), **{key: given[key] for key in _KEYS if key in given}},
        config_dir=options.get("config_dir"),
    )


def _execution(options: Options) -> dict[str, Any]:
    given = cast("dict[str, Any]", options)
    return {
        key: given[key] for key in ("run_dir", "fresh", "retry_failed", "progress", "hooks") if key in given
    }


def _tell(watching: Sequence[Hooks], text: str) -> None:
    for hooks in watching:
        hooks.notice(Notice("warning", text))


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
