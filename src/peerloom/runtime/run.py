"""One run: starts services and members, watches them, and leaves a consistent run directory.

The driver holds no task. It starts things, hears of deaths, adds figures up; what moves between agents
never passes through it.
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from shlex import quote
from typing import Literal

from peerloom.errors import EngineError, PeerloomError, SourceError
from peerloom.events import Hooks, Notice, RunFinished, RunStarted
from peerloom.protocol.quarantine import POISON
from peerloom.protocol.view import ALONE, FEEDER, PEER, Member
from peerloom.runtime.brief import Brief, MemberStats, decode_stats
from peerloom.runtime.engine import Engine
from peerloom.runtime.link import Unreachable
from peerloom.runtime.local import LocalEngine
from peerloom.runtime.program import Program
from peerloom.runtime.session import Session
from peerloom.runtime.settings import RunSettings, adjusted
from peerloom.runtime.summary import Figures, Summary, summarise
from peerloom.runtime.supervisor import Supervisor
from peerloom.runtime.threads import to_its_end
from peerloom.runtime.watchers import Watchers
from peerloom.services.llm.service import ClientSpec, LLMService
from peerloom.services.spawn import LocalSpawner
from peerloom.sink.errors import SinkError
from peerloom.sink.journal.prune import clear as clear_journal
from peerloom.sink.layout import POSITIONS
from peerloom.sink.read import read_totals
from peerloom.sink.state import How
from peerloom.source.base import Source
from peerloom.source.positions import Positioned
from peerloom.task import FAILED
from peerloom.workflow import check_agents

FIGURES_SECONDS = 0.5
CENSUS_SECONDS = 60.0
KEEP_SECONDS = 30.0  # between two writings of what this session has cost so far

State = Literal["running", "paused", "draining", "stopping"]


class Run:
    """One session of a program's run over a source.

    Args:
        program: workflow and agents.
        source: where rows come from.
        llm: the language model service; the run starts and stops it.
        settings: shape and engine.
        session: of a claimed run directory; the caller releases it.
        recipe: name for people and for the rows' provenance.
        hooks: whoever watches.
        config_yaml: the resolved configuration, kept as `run.yaml`.

    Raises:
        WorkflowError: if a role lacks an agent.
        ConfigError: if the settings place a role that does not exist.
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
        self._watchers = Watchers(hooks)
        self._config_yaml = config_yaml
        self._figures = Figures()
        self._cpu_before = 0.0
        self._total: int | None = None
        self._client: ClientSpec | None = None
        self._over = asyncio.Event()
        self._drained = False
        self._paused = ""
        self._engine = _engine(settings)
        self._supervisor = Supervisor(
            self._engine,
            settings,
            program.workflow.roles,
            brief=self._brief,
            on_event=self._watchers.member,
            on_finished=self._over.set,
            first=session.first,
        )

    async def execute(self) -> Summary:
        """Run to the end; the summary, which is also written to the run directory.

        If an earlier session did all there is to do, nothing is started.

        Raises:
            SourceError: if the source has no row.
            SinkError: if the run directory cannot be written.
            ServiceError: if the model cannot be started, or has died; finished rows are kept.
            EngineError: if processes cannot be started; finished rows are kept.
        """
        done = self._session.done
        if done is not None:
            self._watchers.notice(f"nothing to do: all {done['admitted']} rows are in {self._run_dir.path}")
            self._watchers.emit("run_finished", RunFinished("finished", str(self._run_dir.path)))
            return done
        if not await asyncio.to_thread(self._has_rows):
            raise SourceError(f"the source has no rows: {self._source.describe()}")
        self._cpu_before = time.process_time()
        for told in await to_its_end(self._session.begin):
            self._watchers.notice(told)
        self._run_dir.write_yaml(self._config_yaml)
        how: How = "failed"
        try:
            await self._execute()
            self._check_complete()
            self._tell_of_failures()
            how = "drained" if self._drained else "finished"
        except* PeerloomError as group:
            raise _first(group) from None
        finally:
            await self._wind_down()
            summary = self._conclude(how)
            self._watchers.emit("run_finished", RunFinished(how, str(self._run_dir.path)))
        return summary

    @property
    def settings(self) -> RunSettings:
        """As they are now."""
        return self._settings

    @property
    def session(self) -> int:
        """The number of this session of the run directory, from 1."""
        return self._session.number

    @property
    def state(self) -> State:
        """What the run is about."""
        if self._over.is_set():
            return "stopping"
        if self._paused:
            return "paused"
        return "draining" if self._drained else "running"

    @property
    def paused(self) -> str:
        """Why the run is paused; empty if it is not."""
        return self._paused

    def address(self) -> str:
        """Where other hosts of the cluster reach this process, once the run has started."""
        return self._engine.address()

    def pause(self, why: str) -> bool:
        """Admit nothing and begin no turn; turns under way finish. False if it was paused already."""
        if self._paused or self._over.is_set():
            return False
        self._paused = why
        self._supervisor.go_at(self._settings, paused=True)
        text = f"paused: {why}. Turns under way finish; `peerloom ctl continue {self._run_dir.path}` goes on"
        self.tell(Notice("warning", text))
        return True

    def unpause(self) -> bool:
        """Go on. False if it was not paused."""
        if not self._paused or self._over.is_set():
            return False
        self._paused = ""
        self._supervisor.go_at(self._settings, paused=False)
        self._watchers.notice("going on")
        return True

    def adjust(self, key: str, value: str) -> bool:
        """Change a setting, see `runtime.settings.adjusted`. False if it had that value.

        Raises:
            ConfigError: if it cannot be set, or not to that.
        """
        before, self._settings = self._settings, adjusted(self._settings, key, value)
        if before == self._settings:
            return False
        self._supervisor.go_at(self._settings, paused=bool(self._paused))
        self._watchers.notice(f"{key} is now {getattr(self._settings, key)}, it was {getattr(before, key)}")
        return True

    def tell(self, notice: Notice) -> None:
        """Tell whoever watches."""
        self._watchers.emit("notice", notice)

    async def heard(self) -> None:
        """Wait until all members go by what was last asked of the run."""
        await self._supervisor.heard()

    def drain(self) -> None:
        """Admit nothing more, and finish what is in flight; a paused run goes on for it."""
        self._drained = True
        self._supervisor.drain()
        self.unpause()

    def abort(self) -> None:
        """Stop at once; tasks in flight leave no row."""
        self._drained = True
        self._over.set()

    def _conclude(self, how: How) -> Summary:
        """Write down what the run came to so far."""
        summary = summarise(
            read_totals(self._run_dir.path),
            wall_seconds=self._session.seconds(),
            cpu_seconds=self._cpu_seconds(),
            sessions=self._session.count,
        )
        try:
            if how == "finished":
                clear_journal(self._run_dir.path)
            self._run_dir.write_summary(summary)
            self._session.keep(self._cpu_seconds(), how)
        except SinkError as error:
            self._watchers.notice(f"the summary could not be written: {error}")
        return summary

    async def _execute(self) -> None:
        # The model first: a wrong address or name shows at once, before any process of Ray is started.
        self._client = await self._llm.start(LocalSpawner(), self._watchers.notice, self._run_dir.logs)
        await to_its_end(self._session.know_model, self._client)
        await self._engine.start()
        again = await to_its_end(self._session.retry)
        if again:
            self._watchers.notice(f"{again} failed tasks are done again")
        self._watchers.emit("run_started", RunStarted(str(self._run_dir.path), self._recipe))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._llm.watch())
                counted = group.create_task(self._count_rows())
                group.create_task(self._watch_figures())
                group.create_task(self._keep_figures())
                self._supervisor.start(group)
                await self._over.wait()
                await self._take_figures()
                if not self._drained:
                    await counted
                raise _Over
        except* _Over:
            pass
        finally:
            self._over.set()

    async def _wind_down(self) -> None:
        """Stop everything; what the members count at their very end is what the summary says."""
        async with contextlib.AsyncExitStack() as last:
            last.push_async_callback(self._engine.close)
            last.push_async_callback(self._llm.stop)
            await self._supervisor.stop(self._take)

    def _check_complete(self) -> None:
        """A run that was not interrupted has a row for every task; that is what the protocol is for."""
        committed = self._figures.totals().admitted
        if not self._drained and self._total is not None and committed != self._total:
            raise EngineError(
                f"{committed} rows are committed of {self._total} tasks. This is a defect of Peerloom, "
                f"unless the input was changed meanwhile; the log is in {self._run_dir.path}"
            )

    def _tell_of_failures(self) -> None:
        totals = self._figures.totals()
        failed = totals.outcomes.get(FAILED, 0)
        if failed:
            why = ", ".join(f"{reason} {count}" for reason, count in sorted(totals.reasons.items()))
            where = self._run_dir.path / "rejected"
            text = f"{failed} of {totals.admitted} tasks failed ({why}); each row's detail says why: {where}"
            again = f"peerloom resume {quote(str(self._run_dir.path))} --retry-failed"
            text += f"; {again} (in Python retry_failed=True) does them again"
            self._watchers.emit("notice", Notice("warning", text))

    def _has_rows(self) -> bool:
        partitions = self._settings.partitions
        return any(next(self._source.rows(p, partitions), None) for p in range(partitions))

    async def _count_rows(self) -> None:
        """How far there is to go; a large input is read to its end for it, so the run does not wait.

        The first such reading leaves the rows' positions, and whoever resumes the run need not read again.
        """
        count = self._source.total
        if isinstance(self._source, Positioned):
            count = partial(self._source.index, self._run_dir.path / POSITIONS)
        try:
            self._total = await asyncio.to_thread(count) * self._settings.trials
        except SourceError as error:
            self._watchers.notice(f"the rows cannot be counted: {error}")

    def _cpu_seconds(self) -> float:
        """Of all sessions, this one's driver and members included."""
        here = time.process_time() - self._cpu_before
        return self._session.cpu_seconds + self._figures.cpu_seconds() + here

    async def _keep_figures(self) -> None:
        """So that a session that is killed has cost something too."""
        while True:
            await asyncio.sleep(KEEP_SECONDS)
            with contextlib.suppress(SinkError):  # a full disk is told of elsewhere
                await asyncio.to_thread(self._session.keep, self._cpu_seconds())

    async def _watch_figures(self) -> None:
        committed, poisoned, since = -1, 0, time.monotonic()
        while True:
            await self._take_figures()
            progress = self._figures.progress(
                self._session.seconds(), self._total, self._session.wall_seconds, self._paused
            )
            self._watchers.emit("progress", progress)
            totals = self._figures.totals()
            if totals.reasons.get(POISON, 0) != poisoned:
                poisoned = totals.reasons.get(POISON, 0)
                self._supervisor.condemned()
            rows = totals.admitted - poisoned
            if rows != committed or self._paused:
                committed, since = rows, time.monotonic()
                self._supervisor.progressed()
            elif time.monotonic() - since > CENSUS_SECONDS:
                self._supervisor.census()
                since = time.monotonic()
            await asyncio.sleep(FIGURES_SECONDS)

    async def _take_figures(self) -> None:
        async with asyncio.TaskGroup() as group:
            for name in self._supervisor.names:
                group.create_task(self._take_stats(name))

    async def _take_stats(self, name: str) -> None:
        with contextlib.suppress(Unreachable, TimeoutError):
            async with asyncio.timeout(self._settings.suspect_seconds):
                self._take(name, decode_stats(await self._engine.stats(name)))

    def _take(self, name: str, stats: MemberStats) -> None:
        self._figures.take(name, stats)
        for text in stats.notices:
            self._watchers.notice(f"{name}: {text}")

    def _brief(self, member: Member) -> Brief:
        return Brief(
            member=member,
            program=self._program,
            settings=self._settings,
            run_dir=self._run_dir.path,
            provenance={
                "recipe": self._recipe,
                "run": self._run_dir.path.name,
                "peerloom": version("peerloom"),
            },
            source=self._source if member.kind == FEEDER else None,
            llm=self._client if member.kind in (PEER, ALONE) else None,
        )


class _Over(Exception):
    """Ends the run's task group; what still watches is cancelled."""


def _engine(settings: RunSettings) -> Engine:
    if settings.engine == "local":
        return LocalEngine()
    from peerloom.runtime.ray.engine import RayEngine  # noqa: PLC0415 - Ray is slow to import

    return RayEngine(settings)


def _first(group: BaseExceptionGroup[PeerloomError]) -> PeerloomError:
    """The first error in a group; the others are its consequences."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
