"""Sum up rows for the summary; each index record holds the totals of its group, so they survive a crash."""

import msgspec

from peerloom.turn import Usage

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

    def add(self, other: "AgentTally", sign: int = 1) -> None:
        """Add another tally to this one; with sign -1, subtract that of some of the same rows."""
        self.turns += sign * other.turns
        self.calls += sign * other.calls
        self.prompt += sign * other.prompt
        self.completion += sign * other.completion
        self.cached += sign * other.cached
        self.seconds = max(0.0, self.seconds + sign * other.seconds)
        self.usd = max(0.0, self.usd + sign * other.usd)
        if (self.calls | self.prompt | self.completion | self.cached) > MAX_COUNT:
            self._limit()

    def count(self, usage: Usage, seconds: float) -> None:
        """Add a turn."""
        self.turns += 1
        self.seconds += seconds
        self.calls += usage.calls
        self.prompt += usage.prompt
        self.completion += usage.completion
        self.cached += usage.cached
        self.usd += usage.usd
        if (self.calls | self.prompt | self.completion | self.cached) > MAX_COUNT:
            self._limit()

    def _limit(self) -> None:
        self.calls, self.prompt = min(self.calls, MAX_COUNT), min(self.prompt, MAX_COUNT)
        self.completion, self.cached = min(self.completion, MAX_COUNT), min(self.cached, MAX_COUNT)


class Totals(msgspec.Struct, array_like=True):
    """The totals of some committed rows.

    `admitted` is the number of rows, which is also the sum of `outcomes`; `reasons` counts the rows that have
    a reason; `agents` has a tally for each role.
    """

    admitted: int = 0
    outcomes: dict[str, int] = {}
    reasons: dict[str, int] = {}
    agents: dict[str, AgentTally] = {}

    def add_row(self, outcome: str, reason: str, tally: dict[str, AgentTally]) -> None:
        """Count one row."""
        self.add(Totals(1, {outcome: 1}, {reason: 1} if reason else {}, tally))

    def add(self, other: "Totals", sign: int = 1) -> None:
        """Add other totals to these; with sign -1, subtract those of some of the same rows."""
        self.admitted += sign * other.admitted
        for mine, theirs in ((self.outcomes, other.outcomes), (self.reasons, other.reasons)):
            for name, count in theirs.items():
                mine[name] = mine.get(name, 0) + sign * count
                if not mine[name]:
                    del mine[name]
        for name, tally in other.agents.items():
            agent = self.agents.setdefault(name, AgentTally())
            agent.add(tally, sign)
            if sign < 0 and not agent.turns:
                del self.agents[name]
