"""What the members count, asked of them again and again: for those who watch, and to see if rows come in.

The supervisor hears of progress here: while there is none it takes a census of the tasks, and it hopes for
longer for rows that stand still for a reason.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable

from peerloom.events import Progress
from peerloom.protocol.quarantine import POISON
from peerloom.runtime.driver.hooks import HookDispatcher
from peerloom.runtime.driver.summary import Figures
from peerloom.runtime.driver.supervisor import Supervisor
from peerloom.runtime.engine import Engine
from peerloom.runtime.member.spec import MemberStats, decode_stats
from peerloom.runtime.steps.error_counts import SessionErrors
from peerloom.runtime.transport.base import Unreachable

FIGURES_SECONDS = 0.5
FIRST_SECONDS = 0.02  # after the members are there; twice as long each time: an early failure shows early
CENSUS_SECONDS = 2.0  # without a new row; twice as long after each census that has brought none
MOST_CENSUS_SECONDS = 60.0


class StatsCollector:
    """Of one session.

    Args:
        engine: reaches the members.
        supervisor: knows them.
        watchers: told what comes in.
        patience: seconds that a member has to answer.
        on_readings: hears what a member uses of the services, and wants of them.
    """

    def __init__(
        self,
        engine: Engine,
        supervisor: Supervisor,
        watchers: HookDispatcher,
        *,
        Deadline: float,
        on_readings: Callable[[str, bytes], None],
    ) -> None:
        self._engine = engine
        self._supervisor = supervisor
        self._watchers = watchers
        self._patience = Deadline
        self._on_readings = on_readings
        self.figures = Figures()
        self.errors = SessionErrors()
        self._facts: set[str] = set()

    async def watch(self, progress: Callable[[], Progress], standing_still: Callable[[], str]) -> None:
        """Ask, tell and look for progress, for as long as the run lasts.

        Args:
            progress: a snapshot of the run.
            standing_still: why no rows are to be expected; empty if they are.
        """
        committed, poisoned, since, hope = -1, 0, time.monotonic(), CENSUS_SECONDS
        pause = min(FIGURES_SECONDS, FIRST_SECONDS)
        while True:
            await self.ask_all()
            self._watchers.emit("progress", progress())
            totals = self.figures.totals()
            if totals.reasons.get(POISON, 0) != poisoned:
                poisoned = totals.reasons.get(POISON, 0)
                self._supervisor.condemned()
            rows = totals.admitted - poisoned
            if rows != committed or standing_still():
                committed, since, hope = rows, time.monotonic(), CENSUS_SECONDS
                self._supervisor.progressed()
            elif time.monotonic() - since > hope:
                self._supervisor.census()
                since, hope = time.monotonic(), min(MOST_CENSUS_SECONDS, 2 * hope)
            await asyncio.sleep(pause)
            pause = min(FIGURES_SECONDS, 2 * pause if self._supervisor.names else FIRST_SECONDS)

    async def ask_all(self) -> None:
        """Take in what each member says now, of those that answer."""
        async with asyncio.TaskGroup() as group:
            for name in self._supervisor.names:
                group.create_task(self._ask(name))

    def take(self, name: str, stats: MemberStats) -> None:
        """Take in what a member says."""
        self.figures.take(name, stats)
        self.errors.take(name, stats.errors)
        if stats.readings:
            self._on_readings(name, stats.readings)
        for text in stats.notices:
            self._watchers.notice(f"{name}: {text}")
        for text in stats.facts:
            if text not in self._facts:
                self._facts.add(text)
                self._watchers.notice(text)

    async def _ask(self, name: str) -> None:
        with contextlib.suppress(Unreachable, TimeoutError):
            async with asyncio.timeout(self._patience):
                self.take(name, decode_stats(await self._engine.stats(name)))
