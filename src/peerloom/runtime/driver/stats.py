"""Collect the statistics of members periodically, for the hooks, and to detect a lack of progress.

While no rows are committed, the supervisor starts a census at increasing intervals, except while the run is
paused or waits for a service.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable

from peerloom.events import Progress
from peerloom.protocol.quarantine import POISON
from peerloom.runtime.driver.hooks import HookDispatcher
from peerloom.runtime.driver.summary import RunStats
from peerloom.runtime.driver.supervisor import Supervisor
from peerloom.runtime.engine import Engine
from peerloom.runtime.member.spec import MemberStats, decode_stats
from peerloom.runtime.steps.error_counts import SessionErrors
from peerloom.runtime.transport.base import Unreachable

STATS_SECONDS = 0.5
FIRST_SECONDS = 0.02  # after the first view; doubles each time, so that early failures show early
CENSUS_SECONDS = 2.0  # without a new row; doubles after each census without one
MAX_CENSUS_SECONDS = 60.0


class StatsCollector:
    """Collects the statistics of one session.

    Args:
        engine: reaches the members.
        supervisor: supervises the members.
        hooks: receive progress and notices.
        patience: seconds that a member has to answer.
        on_usage: called with a member's name and encoded usage reports.
    """

    def __init__(
        self,
        engine: Engine,
        supervisor: Supervisor,
        hooks: HookDispatcher,
        *,
        timeout: float,
        on_usage: Callable[[str, bytes], None],
    ) -> None:
        self._engine = engine
        self._supervisor = supervisor
        self._hooks = hooks
        self._timeout = timeout
        self._on_usage = on_usage
        self.stats = RunStats()
        self.errors = SessionErrors()
        self._facts: set[str] = set()

    async def watch(self, progress: Callable[[], Progress], stalled: Callable[[], str]) -> None:
        """Collect statistics and look for progress until cancelled.

        Args:
            progress: returns a snapshot of the run.
            stalled: returns why no rows can be expected; empty if they can.
        """
        committed, poisoned, since, census_delay = -1, 0, time.monotonic(), CENSUS_SECONDS
        pause = min(STATS_SECONDS, FIRST_SECONDS)
        while True:
            await self.ask_all()
            self._hooks.emit("progress", progress())
            totals = self.stats.totals()
            if totals.reasons.get(POISON, 0) != poisoned:
                poisoned = totals.reasons.get(POISON, 0)
                self._supervisor.poison_committed()
            rows = totals.admitted - poisoned
            if rows != committed or stalled():
                committed, since, census_delay = rows, time.monotonic(), CENSUS_SECONDS
                self._supervisor.rows_committed()
            elif time.monotonic() - since > census_delay:
                self._supervisor.census()
                since, census_delay = time.monotonic(), min(MAX_CENSUS_SECONDS, 2 * census_delay)
            await asyncio.sleep(pause)
            pause = min(STATS_SECONDS, 2 * pause if self._supervisor.names else FIRST_SECONDS)

    async def ask_all(self) -> None:
        """Update the statistics of all members that answer."""
        async with asyncio.TaskGroup() as group:
            for name in self._supervisor.names:
                group.create_task(self._ask(name))

    def update(self, name: str, stats: MemberStats) -> None:
        """Update the statistics of a member, and pass on its notices and usage."""
        self.stats.update(name, stats)
        self.errors.update(name, stats.errors)
        if stats.usage_reports:
            self._on_usage(name, stats.usage_reports)
        for text in stats.notices:
            self._hooks.notice(f"{name}: {text}")
        for text in stats.shared_notices:
            if text not in self._facts:
                self._facts.add(text)
                self._hooks.notice(text)

    async def _ask(self, name: str) -> None:
        with contextlib.suppress(Unreachable, TimeoutError):
            async with asyncio.timeout(self._timeout):
                self.update(name, decode_stats(await self._engine.stats(name)))
