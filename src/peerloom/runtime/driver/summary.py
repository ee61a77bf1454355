"""Add up the statistics of all members, and compose the summary of a run."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import msgspec

from peerloom.events import AgentTotals, Progress
from peerloom.runtime.member.spec import MemberStats
from peerloom.services.llm.cache.client import CacheTally
from peerloom.sink.totals import AgentTally, Totals

Summary = dict[str, Any]


class RunStats:
    """The newest statistics of each member, lost ones included.

    Attributes:
        earlier: the totals before this session.
    """

    def __init__(self) -> None:
        self._stats: dict[str, MemberStats] = {}
        self.earlier = Totals()

    def update(self, name: str, stats: MemberStats) -> None:
        """Update the statistics of a member."""
        self._stats[name] = stats

    def totals(self) -> Totals:
        """Return the totals of committed rows. The newest incarnation of a sink includes earlier ones."""
        totals = Totals()
        for stats in self._newest(lambda stats: stats.totals is not None):
            totals.add(cast("Totals", stats.totals))
        return (
            totals if totals.admitted >= self.earlier.admitted else self.earlier
        )  # some sinks have not reported yet

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


def summarise(
    totals: Totals,
    *,
    wall_seconds: float,
    cpu_seconds: float,
    sessions: int = 1,
    startup_seconds: float = 0.0,
) -> Summary:
    """Return the content of `summary.json`, from the totals; seconds are those of all sessions.

    `tokens_per_second` leaves the startup out.

    Each agent's `cache_hit_rate` is the share of its prompt tokens that the service had in its prefix cache.
    """
    agents = totals.agents
    completion = sum(tally.completion for tally in agents.values())
    working = max(0.0, wall_seconds - startup_seconds)
    return {
        "admitted": totals.admitted,
        "outcomes": dict(totals.outcomes),
        "reasons": dict(totals.reasons),
        "tokens": {
            "prompt": sum(tally.prompt for tally in agents.values()),
            "completion": completion,
            "cached": sum(tally.cached for tally in agents.values()),
        },
        "tokens_per_second": round(completion / working, 3) if working else 0.0,
        "llm_calls": sum(tally.calls for tally in agents.values()),
        "wall_seconds": round(wall_seconds, 3),
        "startup_seconds": round(startup_seconds, 3),
        "cpu_seconds": round(cpu_seconds, 3),
        "sessions": sessions,
        "agents": {name: _agent_entry(tally) for name, tally in agents.items()},
    }


def _merged(groups: Iterable[Mapping[str, AgentTally]]) -> dict[str, AgentTally]:
    merged: dict[str, AgentTally] = {}
    for group in groups:
        for name, tally in group.items():
            merged.setdefault(name, AgentTally()).add(tally)
    return merged


def _agent_entry(tally: AgentTally) -> dict[str, float]:
    rate = round(tally.cached / tally.prompt, 4) if tally.prompt else 0.0
    return {**msgspec.structs.asdict(tally), "cache_hit_rate": rate}


def _totals_of(tally: AgentTally) -> AgentTotals:
    return AgentTotals(tally.turns, tally.calls, tally.prompt, tally.completion, tally.cached, tally.seconds)
