"""Sums over rows, for the summary: each index entry carries those of its group, so they survive a crash."""

from collections.abc import Mapping

import msgspec

MOST = (1 << 63) - 1
"""The largest sum of counts: a row of another program may hold any number, and sums must still be written."""


class AgentTally(msgspec.Struct, array_like=True):
    """What one role did in some rows, summed: turns, LLM calls, tokens, seconds of its turns, dollars."""

    turns: int = 0
    calls: int = 0
    prompt: int = 0
    completion: int = 0
    cached: int = 0
    seconds: float = 0.0
    usd: float = 0.0

    def add(self, other: "AgentTally") -> None:
        """Add another tally to this one."""
        self.turns += other.turns
        self.calls += other.calls
        self.prompt += other.prompt
        self.completion += other.completion
        self.cached += other.cached
        self.seconds += other.seconds
        self.usd += other.usd
        if (self.calls | self.prompt | self.completion | self.cached) > MOST:
            self.calls, self.prompt = min(self.calls, MOST), min(self.prompt, MOST)
            self.completion, self.cached = min(self.completion, MOST), min(self.cached, MOST)

    def subtract(self, other: "AgentTally") -> None:
        """Take another tally, of some of the same rows, out of this one."""
        self.turns -= other.turns
        self.calls -= other.calls
        self.prompt -= other.prompt
        self.completion -= other.completion
        self.cached -= other.cached
        self.seconds = max(0.0, self.seconds - other.seconds)
        self.usd = max(0.0, self.usd - other.usd)


class Totals(msgspec.Struct, array_like=True):
    """What some committed rows add up to.

    `admitted` is their number, which is also the sum of `outcomes`; `reasons` counts those that have one;
    `agents` is by role.
    """

    admitted: int = 0
    outcomes: dict[str, int] = {}
    reasons: dict[str, int] = {}
    agents: dict[str, AgentTally] = {}

    def add_row(self, outcome: str, reason: str, tally: Mapping[str, AgentTally]) -> None:
        """Count one row."""
        self.admitted += 1
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        if reason:
            self.reasons[reason] = self.reasons.get(reason, 0) + 1
        self._add_agents(tally)

    def add(self, other: "Totals") -> None:
        """Add other totals to these."""
        self.admitted += other.admitted
        for mine, theirs in ((self.outcomes, other.outcomes), (self.reasons, other.reasons)):
            for name, count in theirs.items():
                mine[name] = mine.get(name, 0) + count
        self._add_agents(other.agents)

    def subtract(self, other: "Totals") -> None:
        """Take the sums of some of the same rows out of these."""
        self.admitted -= other.admitted
        for mine, theirs in ((self.outcomes, other.outcomes), (self.reasons, other.reasons)):
            for name, count in theirs.items():
                mine[name] = mine.get(name, 0) - count
                if not mine[name]:
                    del mine[name]
        for name, tally in other.agents.items():
            self.agents.setdefault(name, AgentTally()).subtract(tally)
            if not self.agents[name].turns:
                del self.agents[name]

    def _add_agents(self, agents: Mapping[str, AgentTally]) -> None:
        for name, tally in agents.items():
            mine = self.agents.get(name)
            if mine is None:
                mine = self.agents[name] = AgentTally()
            mine.add(tally)
