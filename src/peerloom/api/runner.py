"""Run recipes and workflows from Python, and execute plans for the command line."""

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
from peerloom.control.server import Control
from peerloom.errors import ConfigError, EngineError, first_error
from peerloom.events import Hooks, RunFinished
from peerloom.lookup.nearest import did_you_mean
from peerloom.observe import LogHooks, open_display
from peerloom.observe.console import open_console
from peerloom.runtime.driver.run import Run
from peerloom.runtime.program import Program
from peerloom.runtime.threads import to_its_end
from peerloom.sink.export.writer import export_all
from peerloom.sink.rundir.directory import RunDir
from peerloom.terminal.streams import reopen_closed
from peerloom.workflow import Workflow


class RunOptions(TypedDict, total=False):
    """The options of `run` and `arun`. An omitted option has the configuration's default.

    `source` is a path, a pattern, several of them, rows (any iterable of mappings), or a source object. `llm`
    is a group's name (`"llamacpp"`, `"openai"`, `"simulated"`), a service object, or a script for
    `ScriptedService`, such as a list of replies or a function from request to reply. `config` holds other
    keys of the configuration, with dots: `{"llm.latency": 0.1, "recipe.max_rounds": 2}`. `max_failed` is the
    number of rows (a whole number), or the share of rows (0.2), that may fail before the run stops, with
    `how` as `failed`; by default it stops if its first 20 rows all failed. `check_row` raises `RowError` for
    rows that the agents cannot process. `progress=False` hides the run's progress and its warnings on stderr.

    If `run_dir` holds a run already, it is resumed: finished rows are kept, and missing ones are run, with
    `retry_failed` also failed ones. If the workflow, an agent, a prompt, or a function has changed since, the
    run is refused with the changes, unless `accept_program` is true. `fresh` replaces the run instead.
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
    accept_program: bool
    progress: bool
    hooks: Sequence[Hooks]


_KEYS = ("engine", "placement", "peers", "in_flight", "limit", "trials", "seed", "max_failed")
_EXECUTION = ("run_dir", "fresh", "retry_failed", "accept_program", "progress", "hooks")


def run(
    recipe: str | None = None,
    *,
    workflow: Workflow | None = None,
    agents: Mapping[str, Agent] | None = None,
    **options: Unpack[RunOptions],
) -> RunResult:
    """Run a recipe, or a workflow with its agents, to the end.

    In a notebook, the run uses a separate thread. The first Ctrl-C drains the run, which then returns its
    finished rows (`how` is `drained`); a second one stops it at once.

    Args:
        recipe: a recipe's name, import path, or the path of a `run.yaml`.
        workflow: a workflow instead of a recipe's.
        agents: the agent for each role of the workflow.
        options: see `RunOptions`.

    Raises:
        UsageError: before anything is started, naming the error; a `RunDirError` names the differences from
            the run in `run_dir`.
        ServiceError: if the model cannot be started or dies; rows written so far are kept.
        EngineError: if processes cannot be started.
    """
    plan, execution = _planned(recipe, workflow, agents, options)
    return drive(plan, **execution)


async def arun(
    recipe: str | None = None,
    *,
    workflow: Workflow | None = None,
    agents: Mapping[str, Agent] | None = None,
    **options: Unpack[RunOptions],
) -> RunResult:
    """Run like `run`, but in the running event loop; the caller handles interruptions."""
    plan, execution = await asyncio.to_thread(_planned, recipe, workflow, agents, options)
    return await execute(plan, **execution)


def drive(plan: Plan, **execution: Any) -> RunResult:
    """Execute a plan in a new event loop, and handle Ctrl-C; see `execute` for the arguments.

    Raises:
        KeyboardInterrupt: if it was interrupted before the first task, or for the third time.
    """
    reopen_closed()  # before the event loop opens its own files
    interrupts = Interrupts()

    async def execute_interruptibly() -> RunResult:
        with interrupts.handling_signals():
            return await execute(plan, interrupts=interrupts, **execution)

    def run_event_loop() -> RunResult:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(execute_interruptibly())
        except asyncio.CancelledError:
            if not interrupts.count:
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
        return run_event_loop()
    with ThreadPoolExecutor(1, "peerloom") as thread:
        result = thread.submit(run_event_loop)
        while True:
            try:
                return result.result()
            except KeyboardInterrupt:
                if result.done():
                    raise
                interrupts.interrupt()


async def execute(  # noqa: PLR0913 - each is an option of a run
    plan: Plan,
    *,
    run_dir: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    retry_failed: bool = False,
    accept_program: bool = False,
    start_over: bool = True,
    progress: bool = True,
    hooks: Sequence[Hooks] = (),
    interrupts: Interrupts | None = None,
) -> RunResult:
    """Execute a plan, or resume it if its run directory holds a part of the run.

    Args:
        plan: the plan.
        run_dir: the run directory; by default a new directory below `runs/`.
        fresh: replace an earlier run in that directory.
        retry_failed: run its failed rows again.
        accept_program: continue the run even if its program was another version.
        start_over: replace another run in that directory if it has done no work yet.
        progress: show the run and its warnings on stderr.
        hooks: further observers.
        interrupts: the handler of interruptions, which can drain the run.

    Raises:
        RunDirError: if the directory is in use, or holds another run.
        SinkError: if `sink.format` is set and the file cannot be written; the rows are still there.
        PeerloomError: see `Run.execute`.
    """
    claimed = RunDir.claim(run_dir or default_run_dir(plan.name), fresh=fresh)
    ending, control = _EndingRecorder(), Control()
    observers: list[Hooks] = [LogHooks(claimed.log), ending, control, *hooks]
    with ExitStack() as stack:
        stack.push(claimed)
        kept = {"retry_failed": retry_failed, "start_over": start_over, "accept_program": accept_program}
        session = await asyncio.to_thread(plan.session, claimed, **kept)
        if progress:
            observers.append(stack.enter_context(open_display(open_console(stderr=True))))
        if interrupts is not None:
            observers.append(interrupts)
        run = Run(
            plan.program,
            plan.source,
            plan.services,
            plan.settings,
            session,
            recipe=plan.name,
            hooks=observers,
            config_yaml=plan.yaml,
        )
        if interrupts is not None:
            interrupts.attach(run.control)
        async with control.serving(run.control):
            summary = await _execute(run)
        if plan.config.sink.format != "jsonl":
            if interrupts is not None:
                interrupts.detach()
            await _export(claimed.path, plan.config.sink.format)
    return RunResult(claimed.path, ending.how, summary)


async def _execute(run: Run) -> dict[str, Any]:
    try:
        return await run.execute()
    except ExceptionGroup as group:
        error = first_error(group)
        raise EngineError(f"the run broke off: {type(error).__name__}: {error}") from group


def default_run_dir(name: str) -> Path:
    """Return `runs/<name>-<date>-<short id>`, a directory that does not exist yet."""
    safe = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "run"
    return Path("runs") / f"{safe}-{time.strftime('%Y%m%d')}-{secrets.token_hex(3)}"


async def _export(run_dir: Path, format: str) -> None:
    """Export in a thread; a cancellation of this task ends the export, and waits for the thread."""
    task = asyncio.current_task()

    def check_cancelled() -> None:
        if task is not None and task.cancelling():
            raise _Cancelled

    await to_its_end(export_all, run_dir, format, check_cancelled)


class _Cancelled(Exception):
    """Ends the export; it never propagates, because the cancellation itself takes precedence."""


class _EndingRecorder(Hooks):
    """Hooks that record how the run ended."""

    how: Ended = "finished"

    def run_finished(self, event: RunFinished) -> None:
        if event.how in ("drained", "suspended", "failed"):
            self.how = event.how


def _planned(
    recipe: str | None, workflow: Workflow | None, agents: Mapping[str, Agent] | None, options: RunOptions
) -> tuple[Plan, dict[str, Any]]:
    """Return the plan, and the options of its execution."""
    for name in options:
        if name not in RunOptions.__annotations__:
            known = list(RunOptions.__annotations__)
            raise ConfigError(
                f"run() has no option {name!r}.{did_you_mean(name, known)} Other keys go into config={{...}}"
            )
    if (workflow is None) != (agents is None):
        raise ConfigError("workflow= and agents= belong together: one of them is missing")
    given = cast("dict[str, Any]", options)
    program = None
    if workflow is not None and agents is not None:
        program = Program(workflow, agents, given.get("check_row"))
    plan = make_plan(
        recipe,
        program=program,
        source=given.get("source"),
        llm=given.get("llm"),
        values={**given.get("config", {}), **{key: given[key] for key in _KEYS if key in given}},
        config_dir=given.get("config_dir"),
    )
    return plan, {key: given[key] for key in _EXECUTION if key in given}


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
