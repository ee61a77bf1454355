"""Execute a session of a run: start services and members, and leave a consistent run directory.

The driver holds no tasks, and tasks never pass through it. It starts processes, notices their deaths, and
adds up statistics.
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Literal

from peerloom.errors import PeerloomError, SourceError
from peerloom.events import (
    Hooks,
    MemberJoined,
    MemberLost,
    Notice,
    Progress,
    RunFinished,
    RunStarted,
    ViewChanged,
)
from peerloom.protocol.view import ALONE, FEEDER, PEER, Member
from peerloom.runtime.driver.budget_guard import BudgetGuard
from peerloom.runtime.driver.client import costs, prepared
from peerloom.runtime.driver.conclusion import check_complete, failures, first_error
from peerloom.runtime.driver.failure_limit import FailureLimit
from peerloom.runtime.driver.hooks import HookDispatcher
from peerloom.runtime.driver.quota import QuotaCoordinator
from peerloom.runtime.driver.session import Session
from peerloom.runtime.driver.stats import StatsCollector
from peerloom.runtime.driver.summary import Summary, summarise
from peerloom.runtime.driver.supervisor import Event, Supervisor
from peerloom.runtime.driver.waiting import Waiting, leave_waiting, waiting_for, with_waiting
from peerloom.runtime.engines.select import make_engine
from peerloom.runtime.member.spec import MemberSpec
from peerloom.runtime.program import Program
from peerloom.runtime.settings import RunSettings, adjusted
from peerloom.runtime.threads import to_its_end
from peerloom.services.llm.client.service import ClientSpec, LLMService, start_step
from peerloom.sink.errors import SinkError
from peerloom.sink.journal.prune import clear as clear_journal
from peerloom.sink.layout import POSITIONS
from peerloom.sink.read import read_totals
from peerloom.sink.rundir.state import How
from peerloom.source.base import Source
from peerloom.source.parts.counting import count_rows, has_rows
from peerloom.workflow import check_agents

RunState = Literal["running", "paused", "draining", "stopping"]


class Run:
    """One session of a run.

    Args:
        program: the workflow and agents.
        source: the source of the rows.
        llm: the language model service, which the run starts and stops.
        settings: the settings of the run.
        session: the session of a claimed run directory, which the caller releases.
        recipe: the name of the recipe, for the provenance of rows.
        hooks: receive the events of the run.
        config_yaml: the resolved configuration, written to `run.yaml`.

    Raises:
        WorkflowError: if a role lacks an agent.
        ConfigError: if the settings are inconsistent, or place a role that does not exist.
    """

    def __init__(
        self,
        program: Program,
        source: Source,
        llm: LLMService,
        settings: RunSettings,
        session: Session,
        *,
        recipe: str,
        hooks: Sequence[Hooks] = (),
        config_yaml: str = "",
    ) -> None:
        check_agents(program.workflow, program.agents)
        self._program = program
        self._source = source
        self._llm = llm
        self._settings = settings
        self._session = session
        self._run_dir = session.run_dir
        self._recipe = recipe
        self._hooks = HookDispatcher(hooks)
        self._config_yaml = config_yaml
        self._cpu_before = 0.0
        self._total: int | None = None
        self._client: ClientSpec | None = None
        self._ended = asyncio.Event()
        self._drained = asyncio.Event()
        self._suspended = False
        self._paused = ""
        self._quota: QuotaCoordinator | None = None
        path = self._run_dir.path
        self._budget_guard = BudgetGuard(
            settings.budget, path, seconds=session.seconds, pause=self._suspend, notify=self.tell
        )
        self._failure_limit = FailureLimit(settings.max_failed, path, self.tell)
        self._engine = make_engine(settings)
        self._supervisor = Supervisor(
            self._engine,
            settings,
            program.workflow.roles,
            make_spec=self._make_spec,
            on_event=self._on_event,
            on_finished=self._ended.set,
            on_usage=self._on_usage,
            first=session.first,
        )
        self._collector = StatsCollector(
            self._engine,
            self._supervisor,
            self._hooks,
            timeout=settings.suspect_seconds,
            on_usage=self._on_usage,
        )
        self._stats = self._collector.stats

    async def execute(self) -> Summary:
        """Run to the end, write the summary to the run directory, and return it.

        If an earlier session finished the run, nothing is started.

        Raises:
            SourceError: if the source has no row.
            SinkError: if the run directory cannot be written.
            ServiceError: if the model cannot be started or has died; finished rows are kept.
            EngineError: if processes cannot be started; finished rows are kept.
        """
        if (done := self._session.done) is not None:
            self._hooks.notice(f"nothing to do: all {done['admitted']} rows are in {self._run_dir.path}")
            ended = "failed" if self._failure_limit.judge(done["outcomes"]) else "finished"
            self._hooks.emit("run_finished", RunFinished(ended, str(self._run_dir.path)))
            return done
        if not await asyncio.to_thread(has_rows, self._source, self._settings.partitions):
            raise SourceError(f"the source has no rows: {self._source.describe()}")
        self._cpu_before = time.process_time()
        for text in await to_its_end(self._session.begin):
            self._hooks.notice(text)
        self._run_dir.write_yaml(self._config_yaml)
        how: How = "failed"
        try:
            await self._execute()
            totals = self._stats.totals()
            if self._suspended:
                how = "suspended"
            elif self._drained.is_set():
                how = "failed" if self._failure_limit.stopped else "drained"
            else:
                check_complete(totals, self._total, self._run_dir.path)
                how = "finished"
                await asyncio.to_thread(self._failure_limit.judge, totals.outcomes)
            if not self._failure_limit.why and (notice := failures(totals, self._run_dir.path)) is not None:
                self.tell(notice)
        except* PeerloomError as group:
            raise first_error(group) from None
        finally:
            await self._wind_down()
            summary = self._write_summary(how)
            if how == "suspended":
                self._budget_guard.conclude(summary["suspended"])
            ended = "failed" if self._failure_limit.why else how
            self._hooks.emit("run_finished", RunFinished(ended, str(self._run_dir.path)))
        return summary

    @property
    def settings(self) -> RunSettings:
        """The present settings."""
        return self._settings

    @property
    def session(self) -> int:
        """The number of this session of the run directory, from 1."""
        return self._session.number

    @property
    def state(self) -> RunState:
        """The state of the run."""
        if self._ended.is_set():
            return "stopping"
        if self._paused:
            return "paused"
        return "draining" if self._drained.is_set() else "running"

    @property
    def paused(self) -> str:
        """Why the run is paused; empty if it is not."""
        return self._paused

    @property
    def standing_still(self) -> str:
        """Why no rows can be expected: the run is paused, or waits for a service; empty if they can."""
        return self._paused or (self._quota.away if self._quota is not None else "")

    @property
    def waiting(self) -> "Waiting | None":
        """The wait for a service that refuses calls, if there is one."""
        return waiting_for(self._quota) if self._quota is not None else None

    def address(self) -> str:
        """Return the address of this process for other hosts, once the run has started."""
        return self._engine.address()

    def pause(self, why: str) -> bool:
        """Stop admission and new turns; turns under way finish. Return False if it was paused already."""
        if self._paused or self._suspended or self._ended.is_set():
            return False
        self._paused = why
        self._supervisor.set_pace(self._settings, paused=True)
        text = f"paused: {why}. Turns under way finish; `peerloom ctl continue {self._run_dir.path}` goes on"
        self.tell(Notice("warning", text))
        return True

    def unpause(self) -> bool:
        """Continue a paused run. Return False if it was not paused, or its budget is used up."""
        if not self._paused or self._suspended or self._ended.is_set():
            return False
        self._paused = ""
        self._supervisor.set_pace(self._settings, paused=False)
        self._hooks.notice("going on")
        return True

    def adjust(self, key: str, value: str) -> bool:
        """Change a setting (see `runtime.settings.adjusted`). Return False if it has that value already.

        Raises:
            ConfigError: if the setting cannot be changed, or the value is invalid.
        """
        before, self._settings = self._settings, adjusted(self._settings, key, value)
        if before == self._settings:
            return False
        self._supervisor.set_pace(self._settings, paused=bool(self._paused))
        self._hooks.notice(f"{key} is now {getattr(self._settings, key)}, it was {getattr(before, key)}")
        return True

    def tell(self, notice: Notice) -> None:
        """Pass a notice to the hooks."""
        self._hooks.emit("notice", notice)

    async def heard(self) -> None:
        """Wait until all members have received the latest changes of pace."""
        await self._supervisor.wait_delivered()

    def drain(self) -> None:
        """Stop admission, and finish the tasks in flight; a paused run continues for that."""
        self._drained.set()
        self._supervisor.drain()
        self.unpause()

    def abort(self) -> None:
        """Stop at once; tasks in flight get no row."""
        self._drained.set()
        self._ended.set()

    def _suspend(self, why: str) -> None:
        """Stop new turns; the budget guard ends the session when none is under way."""
        self._suspended, self._paused = True, why
        self._supervisor.set_pace(self._settings, paused=True)
        self.tell(Notice("warning", f"{why}. Calls under way are finished"))

    def _on_event(self, event: Event) -> None:
        if isinstance(event, ViewChanged):
            self._session.end_startup()
        elif isinstance(event, MemberJoined) and self._quota is not None:
            self._quota.joined(event.member)
        elif isinstance(event, MemberLost) and self._quota is not None:
            self._quota.lost(event.member)
        self._hooks.member(event)

    def _on_usage(self, member: str, data: bytes) -> None:
        if self._quota is not None:
            self._quota.add_reports(member, data)

    def _on_replicas_moved(self, service: str, urls: Sequence[str]) -> None:
        if self._quota is not None:
            self._quota.set_replicas(service, urls)

    def _write_summary(self, how: How) -> Summary:
        """Write the summary and state of the run as of now."""
        summary = summarise(
            read_totals(self._run_dir.path),
            wall_seconds=self._session.seconds(),
            startup_seconds=self._session.startup_seconds(),
            cpu_seconds=self._cpu_seconds(),
            sessions=self._session.count,
        )
        if self._quota is not None and self._quota.spending.bounded:
            summary["budget"] = self._quota.report()
        summary |= costs(summary, self._client, self._stats.cache()) | self._failure_limit.report()
        summary["errors"] = self._collector.errors.report(self._run_dir.log)
        if how in ("suspended", "drained") and (in_flight := self._stats.in_flight()):
            summary["suspended"] = in_flight
        try:
            if how == "finished":
                clear_journal(self._run_dir.path)
            self._run_dir.write_summary(summary)
            self._session.save(self._cpu_seconds(), how)
        except SinkError as error:
            self._hooks.notice(f"the summary could not be written: {error}")
        return summary

    async def _execute(self) -> None:
        # The model first: a wrong address or name fails at once, before any process of Ray is started.
        self._hooks.starting(start_step(self._llm))
        client = await self._llm.start(self._engine.spawner(), self._hooks.notice, self._run_dir.logs)
        await to_its_end(self._session.record_model, client)
        self._quota = quota = QuotaCoordinator(
            {fleet.service: fleet.limits for fleet in client.fleets},
            self._settings.budget,
            self._run_dir.path,
            members=lambda: self._supervisor.names,
            send=self._supervisor.grant,
            notify=self.tell,
            optional=[fleet.service for fleet in client.fleets if not fleet.patient],
        )
        self._client = prepared(client, self._settings, everything=quota.spending.bounded)
        self._hooks.starting(self._engine.step)
        await self._engine.start()
        again = await to_its_end(self._session.retry)
        earlier = await to_its_end(read_totals, self._run_dir.path)
        self._failure_limit.earlier = self._stats.earlier = earlier
        if again:
            self._hooks.notice(f"{again} failed tasks are done again")
        self._hooks.emit("run_started", RunStarted(str(self._run_dir.path), self._recipe))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._llm.watch(self._on_replicas_moved))
                group.create_task(quota.run())
                group.create_task(self._budget_guard.run(quota, self._stats.turns, self._ended.set))
                row_count = group.create_task(self._count_rows())
                group.create_task(self._collector.watch(self._progress, lambda: self.standing_still))
                group.create_task(self._session.save_periodically(self._cpu_seconds))
                stop_waiting = leave_waiting(quota, self._drained, self._stats, self.tell)
                group.create_task(stop_waiting).add_done_callback(lambda _: self._ended.set())
                group.create_task(self._failure_limit.watch(self._stats.totals, self.drain))
                self._supervisor.start(group)
                await self._ended.wait()
                await self._collector.ask_all()
                if not self._drained.is_set() and not self._suspended:
                    await row_count
                raise _SessionEnded
        except* _SessionEnded:
            pass
        finally:
            self._ended.set()

    async def _wind_down(self) -> None:
        """Stop the members, keeping their final statistics, then the services and the engine."""
        async with contextlib.AsyncExitStack() as last:
            last.push_async_callback(self._engine.close)
            last.push_async_callback(self._llm.stop)
            await self._supervisor.stop(self._collector.update)
            if self._quota is not None:
                self._quota.close()

    async def _count_rows(self) -> None:
        """Count the rows of the source, in the background: a large input must be read to its end."""
        positions = self._run_dir.path / POSITIONS
        try:
            self._total = await asyncio.to_thread(count_rows, self._source, positions) * self._settings.trials
        except SourceError as error:
            self._hooks.notice(f"the rows cannot be counted: {error}")

    def _cpu_seconds(self) -> float:
        """Return the CPU seconds of all sessions, including this driver and its members."""
        here = time.process_time() - self._cpu_before
        return self._session.cpu_seconds + self._stats.cpu_seconds() + here

    def _progress(self) -> Progress:
        progress = self._stats.progress(
            self._session.seconds(), self._total, self._session.wall_seconds, self.standing_still
        )
        return with_waiting(progress, self.waiting)

    def _make_spec(self, member: Member) -> MemberSpec:
        provenance = {"recipe": self._recipe, "run": self._run_dir.path.name, "peerloom": version("peerloom")}
        return MemberSpec(
            member=member,
            program=self._program,
            settings=self._settings,
            run_dir=self._run_dir.path,
            provenance=provenance,
            source=self._source if member.kind == FEEDER else None,
            llm=self._client if member.kind in (PEER, ALONE) else None,
        )


class _SessionEnded(Exception):
    """Ends the run's task group, which cancels its remaining tasks."""
