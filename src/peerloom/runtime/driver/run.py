"""Execute a session of a run: start services and members, and leave a consistent run directory.

The driver holds no tasks, and tasks never pass through it. It starts processes, notices their deaths, and
adds up statistics.
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from peerloom.errors import PeerloomError, SourceError, first_error
from peerloom.events import (
    Hooks,
    MemberJoined,
    MemberLost,
    Progress,
    RunFinished,
    RunStarted,
    ViewChanged,
)
from peerloom.protocol.messages import HealthReport
from peerloom.protocol.view import ALONE, FEEDER, PEER, SINK, Member
from peerloom.runtime.driver.budget_guard import BudgetGuard
from peerloom.runtime.driver.conclusion import check_complete, end_idle_drain, failures
from peerloom.runtime.driver.control import RunControl, describe_wait
from peerloom.runtime.driver.failure_limit import FailureLimit
from peerloom.runtime.driver.hooks import HookDispatcher
from peerloom.runtime.driver.quota import QuotaCoordinator
from peerloom.runtime.driver.session import Session
from peerloom.runtime.driver.stats import RunStats, watch_progress
from peerloom.runtime.driver.summary import Summary, costs, summarise
from peerloom.runtime.driver.supervisor import Event, MemberReport, Supervisor
from peerloom.runtime.engines.select import make_engine
from peerloom.runtime.member.events import LeaseControls, MemberNotice, MemberStats
from peerloom.runtime.member.spec import MemberSpec
from peerloom.runtime.program import Program
from peerloom.runtime.services import RunServices
from peerloom.runtime.settings import RunSettings
from peerloom.runtime.threads import to_its_end
from peerloom.services.llm.cache.client import CachedSpec
from peerloom.services.llm.client.service import ClientSpec, start_step
from peerloom.services.llm.usage.prices import require_price
from peerloom.sink.errors import SinkError
from peerloom.sink.journal.prune import clear as clear_journal
from peerloom.sink.layout import INPUT, LOGS, POSITIONS, RUN_YAML, SUMMARY
from peerloom.sink.read import read_totals
from peerloom.sink.rundir.card import write_card
from peerloom.sink.rundir.state import How
from peerloom.source.base import Source
from peerloom.source.positions import count_rows, has_rows
from peerloom.source.stream.recording import Recorder, StreamSource
from peerloom.workflow import check_agents

RECORD_SECONDS = 0.1  # between two looks at how far a stream is recorded


class Run:
    """One session of a run.

    Args:
        program: the workflow and agents.
        source: the source of the rows.
        services: the language model and other services, which the run starts and stops.
        settings: the settings of the run.
        session: the session of a claimed run directory, which the caller releases.
        recipe: the name of the recipe, for the provenance of rows.
        hooks: receive the events of the run.
        config_yaml: the resolved configuration, written to `run.yaml`.

    Attributes:
        control: pauses, drains and stops the run, and tells its state.

    Raises:
        WorkflowError: if a role lacks an agent.
        ConfigError: if the settings are inconsistent, or place a role that does not exist.
    """

    def __init__(
        self,
        program: Program,
        source: Source,
        services: RunServices,
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
        self._llm = services.llm
        self._services = services
        self._settings = settings
        self._session = session
        self._run_dir = session.run_dir
        self._recipe = recipe
        self._hooks = HookDispatcher(hooks)
        self._config_yaml = config_yaml
        self._cpu_before = 0.0
        self._total: int | None = None
        self._recorder: Recorder | None = None
        self._client: ClientSpec | None = None
        self._stats = RunStats()
        self._engine = make_engine(settings)
        self._supervisor = Supervisor(
            self._engine,
            settings,
            program.workflow.roles,
            make_spec=self._make_spec,
            on_event=self._on_event,
            on_finished=self._on_finished,
            on_report=self._on_report,
            first=session.first,
        )
        self.control = RunControl(settings, session, self._supervisor, self._hooks)
        self._budget_guard = BudgetGuard(settings.budget, self.control)
        self._failure_limit = FailureLimit(settings.max_failed, self.control, self._stats)

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
            text = f"nothing to do: all {done['admitted']} rows are in {self._run_dir.path}"
            if self._session.accepted:
                text += ", made by an earlier version of the program: --fresh (fresh=True) makes them again"
            self._hooks.notice(text)
            ended = "failed" if self._failure_limit.judge(done["outcomes"]) else "finished"
            self._hooks.emit(RunFinished(ended, str(self._run_dir.path)))
            return done
        await self._require_rows()
        self._cpu_before = time.process_time()
        for text in await to_its_end(self._session.begin):
            self._hooks.notice(text)
        self._run_dir.write(RUN_YAML, self._config_yaml)
        await self._begin_recording()
        write_card(self._run_dir.path)
        how: How = "failed"
        try:
            await self._execute()
            totals = await to_its_end(read_totals, self._run_dir.path)
            if self.control.suspended:
                how = "suspended"
            elif self.control.drained.is_set():
                how = "failed" if self._failure_limit.stopped else "drained"
            else:
                check_complete(totals, self._total, self._run_dir.path)
                how = "finished"
                await asyncio.to_thread(self._failure_limit.judge, totals.outcomes)
            if not self._failure_limit.why and (notice := failures(totals, self._run_dir.path)) is not None:
                self.control.notify(notice)
        except* PeerloomError as group:
            raise first_error(group) from None
        finally:
            await self._wind_down()
            summary = self._write_summary(how)
            if how == "suspended":
                self._budget_guard.conclude(summary["suspended"])
            ended = "failed" if self._failure_limit.why else how
            self._hooks.emit(RunFinished(ended, str(self._run_dir.path)))
        return summary

    async def _require_rows(self) -> None:
        """Raise SourceError if the source has no row; a stream may get some later."""
        partitions = self._settings.partitions
        if isinstance(self._source, StreamSource):
            return
        if not await asyncio.to_thread(has_rows, self._source, partitions):
            raise SourceError(f"the source has no rows: {self._source.describe()}")

    async def _begin_recording(self) -> None:
        """Replace a stream by the record of its rows."""
        if isinstance(self._source, StreamSource):
            self._recorder = Recorder(self._source, self._run_dir.path / INPUT)
            self._source = await to_its_end(self._recorder.begin)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, ViewChanged):
            self._session.end_startup()
        elif isinstance(event, MemberJoined | MemberLost) and event.member.startswith((PEER, ALONE)):
            health, quota = self.control.health, self.control.quota
            for each in (health, quota) if quota is not None else (health,):
                (each.joined if isinstance(event, MemberJoined) else each.lost)(event.member)
        self._hooks.emit(event)

    def _on_finished(self) -> None:
        self.control.ended.set()

    def _on_report(self, member: str, report: MemberReport) -> None:
        if isinstance(report, MemberStats):
            self._stats.update(member, report)
        elif isinstance(report, MemberNotice):
            self._hooks.member_notice(member, report)
        elif isinstance(report, HealthReport):
            self.control.health.add_report(member, report)
        elif isinstance(report, LeaseControls):
            if member in self._supervisor.names:  # a feeder that was given up may take tasks to have ended
                self._services.control(report.messages)
        elif self.control.quota is not None:
            self.control.quota.add_reports(member, report.data)

    def _write_summary(self, how: How) -> Summary:
        """Write the summary and state of the run as of now."""
        summary = summarise(
            read_totals(self._run_dir.path),
            wall_seconds=self._session.seconds(),
            startup_seconds=self._session.startup_seconds(),
            cpu_seconds=self._cpu_seconds(),
            sessions=self._session.count,
        )
        quota = self.control.quota
        if quota is not None and quota.spending.bounded:
            summary["budget"] = quota.report()
        summary |= costs(summary, self._client, self._stats.cache()) | self._failure_limit.report()
        summary["errors"] = self._stats.errors.report(self._run_dir.log)
        if how in ("suspended", "drained") and (in_flight := self._stats.in_flight()):
            summary["suspended"] = in_flight
        try:
            if how == "finished":
                clear_journal(self._run_dir.path)
            self._run_dir.write(SUMMARY, summary)
            self._session.save(self._cpu_seconds(), how)
            write_card(self._run_dir.path)
        except SinkError as error:
            self._hooks.notice(f"the summary could not be written: {error}")
        return summary

    async def _execute(self) -> None:
        # The model first: a wrong address or name fails at once, before any process of Ray is started.
        self._hooks.starting(start_step(self._llm))
        client = await self._llm.start(
            "llm", self._engine.spawner(), self._hooks.notice, self._run_dir.path / LOGS
        )
        await self._services.start(self._engine.spawner(), self._hooks.notice, self._run_dir.path / LOGS)
        await to_its_end(self._session.record_model, client)
        self.control.quota = quota = QuotaCoordinator(
            {fleet.service: fleet.limits for fleet in client.fleets} | self._services.limits(),
            self._settings.budget,
            self._run_dir.path,
            send=self._supervisor.send,
            notify=self.control.notify,
            on_refusing=self.control.health.set_refusing,
        )
        optional = [fleet.service for fleet in client.fleets if not fleet.patient]
        self._client = prepare_client(client, self._settings, metered=quota.spending.bounded)
        self._hooks.starting(self._engine.step)
        await self._engine.start()
        self.control.address = self._engine.address()
        again = await to_its_end(self._session.retry)
        self._stats.earlier = await to_its_end(read_totals, self._run_dir.path)
        if again:
            self._hooks.notice(f"{again} failed tasks are done again")
        self._hooks.emit(RunStarted(str(self._run_dir.path), self._recipe))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._llm.watch(self.control.health.set_endpoints))
                group.create_task(self._services.run(self.control.health.set_endpoints))
                group.create_task(self.control.health.run(optional))
                group.create_task(quota.run())
                group.create_task(self._budget_guard.run(quota, self._stats))
                row_count = group.create_task(self._count_rows())
                group.create_task(
                    watch_progress(self._stats, self._supervisor, self.control, self._hooks, self._progress)
                )
                group.create_task(self._session.save_periodically(self._cpu_seconds))
                group.create_task(end_idle_drain(self.control, quota, self._stats))
                group.create_task(self._failure_limit.watch())
                self._supervisor.start(group)
                await self.control.ended.wait()
                if not self.control.drained.is_set() and not self.control.suspended:
                    await row_count
                raise _SessionEnded
        except* _SessionEnded:
            pass
        finally:
            self.control.ended.set()
            await self._supervisor.stop()

    async def _wind_down(self) -> None:
        """Stop the services, the engine, and the recording of a stream."""
        async with contextlib.AsyncExitStack() as last:
            if self._recorder is not None:
                last.push_async_callback(asyncio.to_thread, self._recorder.close)
            last.push_async_callback(self._engine.close)
            last.push_async_callback(self._llm.stop)
            last.push_async_callback(self._services.stop)
            if self.control.quota is not None:
                self.control.quota.close()

    async def _count_rows(self) -> None:
        """Count the rows of the source, in the background: a large input must be read to its end."""
        if self._recorder is not None:
            trials = self._settings.trials
            ended = False
            while not ended:
                ended = await asyncio.to_thread(self._recorder.advance, self._stats.started() // trials)
                await asyncio.sleep(RECORD_SECONDS)
            self._total = self._recorder.rows * trials
            return
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
            self._session.seconds(), self._total, self._session.wall_seconds, self.control.stalled
        )
        waiting = self.control.waiting
        if waiting is None:
            return progress
        return replace(progress, waiting=describe_wait(waiting), waiting_until=waiting.until)

    def _provenance(self) -> dict[str, Any]:
        """Return the part of the provenance that all rows of this session share."""
        program, client = self._session.version, self._client
        found = {
            "recipe": self._recipe,
            "run": self._run_dir.path.name,
            "peerloom": version("peerloom"),
            "program": program.digest if program is not None else "",
            "prompts": program.prompts if program is not None else {},
            "config": self._session.configuration,
            "models": {fleet.service: fleet.origin for fleet in client.fleets} if client is not None else {},
            "license": self._settings.license,
        }
        given = {name: value for name, value in found.items() if value}
        return given | {"seed": self._settings.seed}

    def _make_spec(self, member: Member) -> MemberSpec:
        return MemberSpec(
            member=member,
            program=self._program,
            settings=self._settings,
            run_dir=self._run_dir.path,
            provenance=self._provenance(),
            programs=self._session.programs,
            source=self._source if member.kind == FEEDER else None,
            llm=self._client if member.kind in (PEER, ALONE) else None,
            services=self._services.specs if member.kind != SINK else {},
        )


def prepare_client(client: ClientSpec, settings: RunSettings, *, metered: bool) -> ClientSpec:
    """Return the client for the peers; with `metered`, calls of services without limits are metered too.

    Raises:
        ConfigError: if the budget is in dollars and a price is unknown.
    """
    client = client.map_services(lambda each: each.with_prices(settings.prices).with_limits(metered))
    if settings.budget.usd is not None:
        require_price([(fleet.model, fleet.price) for fleet in client.fleets])
    return client if settings.cache is None else CachedSpec(client, settings.cache)


class _SessionEnded(Exception):
    """Ends the run's task group, which cancels its remaining tasks."""
