"""Sum up rows for the summary; each index record holds the totals of its group, so they survive a crash."""

from collections.abc import Mapping

import msgspec

MAX_COUNT = (1 << 63) - 1
"""The largest sum of counts: a row of another program may hold any number, and sums must be encodable."""


class AgentTally(msgspec.Struct, array_like=True):
    """The totals of one role in some rows: turns, LLM calls, tokens, seconds of its turns, dollars."""

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
        if (self.calls | self.prompt | self.completion | self.cached) > MAX_COUNT:
            self.calls, self.prompt = min(self.calls, MAX_COUNT), min(self.prompt, MAX_COUNT)
            self.completion, self.cached = min(self.completion, MAX_COUNT), min(self.cached, MAX_COUNT)

    def subtract(self, other: "AgentTally") -> None:
        """Subtract the tally of some of the same rows from this one."""
        self.turns -= other.turns
        self.calls -= other.calls
        self.prompt -= other.prompt
        self.completion -= other.completion
        self.cached -= other.cached
        self.seconds = max(0.0, self.seconds - other.seconds)
        self.usd = max(0.0, self.usd - other.usd)


class Totals(msgspec.Struct, array_like=True):
    """The totals of some committed rows.

    `admitted` is the number of rows, which is also the sum of `outcomes`; `reasons` counts the rows that have
    a reason; `agents` has a tally for each role.
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
        """Subtract the totals of some of the same rows from these."""
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
            self.agents.setdefault(name, AgentTally()).add(tally)
