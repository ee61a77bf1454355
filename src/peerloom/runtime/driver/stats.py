"""Add up the statistics of members, emit progress, and detect a lack of it.

While no rows are committed, the supervisor starts a census at increasing intervals, except while the run is
paused or waits for a service.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import cast

from peerloom.events import AgentTotals, Progress
from peerloom.protocol.quarantine import POISON
from peerloom.runtime.driver.control import RunControl
from peerloom.runtime.driver.hooks import HookDispatcher
from peerloom.runtime.driver.supervisor import Supervisor
from peerloom.runtime.member.events import FIRST_SECONDS, STATS_SECONDS, MemberStats
from peerloom.runtime.steps.error_counts import SessionErrors
from peerloom.services.llm.cache.client import CacheTally
from peerloom.sink.totals import AgentTally, Totals

CENSUS_SECONDS = 2.0  # without a new row; doubles after each census without one
MAX_CENSUS_SECONDS = 60.0


class RunStats:
    """The newest statistics of each member, lost ones included.

    Attributes:
        earlier: the totals before this session.
        errors: the errors of all members.
    """

    def __init__(self) -> None:
        self._stats: dict[str, MemberStats] = {}
        self.earlier = Totals()
        self.errors = SessionErrors()

    def update(self, name: str, stats: MemberStats) -> None:
        """Update the statistics of a member."""
        self._stats[name] = stats
        self.errors.update(name, stats.errors)

    def totals(self) -> Totals:
        """Return the totals of committed rows. The newest incarnation of a sink includes earlier ones."""
        totals = Totals()
        for stats in self._newest(lambda stats: stats.totals is not None):
            totals.add(cast("Totals", stats.totals))
        some_missing = totals.admitted < self.earlier.admitted  # sinks that have not reported yet
        return self.earlier if some_missing else totals

    def progress(
        self, seconds: float, total: int | None, earlier_seconds: float = 0.0, paused: str = ""
    ) -> Progress:
        """Return a snapshot for the hooks; `seconds` is the time of all sessions."""
        committed = self.totals()
        agents = _merged(stats.agents for stats in self._stats.values())
        in_flight = self.in_flight()
        return Progress(
            seconds=seconds,
            total=total,
            admitted=committed.admitted + in_flight,
            in_flight=in_flight,
            outcomes=dict(committed.outcomes),
            hops=sum(stats.hops for stats in self._stats.values()),
            agents={name: _totals_of(tally) for name, tally in agents.items()},
            earlier_rows=self.earlier.admitted,
            earlier_seconds=earlier_seconds,
            paused=paused,
            turns=self.turns(),
        )

    def in_flight(self) -> int:
        """Return the number of tasks that are admitted and have no row yet."""
        return sum(stats.in_flight for stats in self._newest())

    def started(self) -> int:
        """Return the number of tasks that are admitted, with those of earlier sessions."""
        return self.totals().admitted + self.in_flight()

    def turns(self) -> int:
        """Return the number of turns under way, without those that wait for permission to make a call."""
        return sum(stats.turns for stats in self._newest())

    def stuck(self) -> bool:
        """Return whether the disk has no room for the files of a member."""
        return any(stats.stuck for stats in self._newest())

    def cache(self) -> CacheTally:
        """Return the use of the cache in this session, by lost members too."""
        total = CacheTally()
        for stats in self._stats.values():
            if stats.cache is not None:
                total.add(stats.cache)
        return total

    def _newest(self, counts: Callable[[MemberStats], bool] = lambda stats: True) -> list[MemberStats]:
        """Return the statistics of each slot's newest incarnation that `counts`."""
        newest: dict[str, tuple[int, MemberStats]] = {}
        for name, stats in self._stats.items():
            slot, _, incarnation = name.rpartition(".")
            if counts(stats) and int(incarnation) >= newest.get(slot, (0, None))[0]:
                newest[slot] = (int(incarnation), stats)
        return [stats for _, stats in newest.values()]

    def cpu_seconds(self) -> float:
        """Return the CPU time of all members, lost ones included."""
        return sum(stats.cpu_seconds for stats in self._stats.values())


async def watch_progress(
    stats: RunStats,
    supervisor: Supervisor,
    control: RunControl,
    hooks: HookDispatcher,
    progress: Callable[[], Progress],
) -> None:
    """Emit progress, and start a census when there is none, until cancelled."""
    committed, poisoned, since, census_delay = -1, 0, time.monotonic(), CENSUS_SECONDS
    pause = min(STATS_SECONDS, FIRST_SECONDS)
    while True:
        hooks.emit(progress())
        totals = stats.totals()
        if totals.reasons.get(POISON, 0) != poisoned:
            poisoned = totals.reasons.get(POISON, 0)
            supervisor.poison_committed()
        rows = totals.admitted - poisoned
        if rows != committed or control.stalled:
            committed, since, census_delay = rows, time.monotonic(), CENSUS_SECONDS
            supervisor.rows_committed()
        elif time.monotonic() - since > census_delay:
            supervisor.census()
            since, census_delay = time.monotonic(), min(MAX_CENSUS_SECONDS, 2 * census_delay)
        await asyncio.sleep(pause)
        pause = min(STATS_SECONDS, 2 * pause if supervisor.names else FIRST_SECONDS)


def _merged(groups: Iterable[Mapping[str, AgentTally]]) -> dict[str, AgentTally]:
    merged: dict[str, AgentTally] = {}
    for group in groups:
        for name, tally in group.items():
            merged.setdefault(name, AgentTally()).add(tally)
    return merged


def _totals_of(tally: AgentTally) -> AgentTotals:
    return AgentTotals(tally.turns, tally.calls, tally.prompt, tally.completion, tally.cached, tally.seconds)
