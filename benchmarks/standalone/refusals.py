"""The cases of `python -m benchmarks limits`: how a provider refuses calls, and who calls it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import ceil
from typing import Literal, get_args

from peerloom.errors import ConfigError
from peerloom.services.llm.simulated.behavior import RetryAfterAs

Engine = Literal["local", "ray"]
PEERS = (1, 2, 4, 8)
SHARES = (0.01, 0.05, 0.1, 0.2)
STORM_EVERY = 0.6  # seconds; short, so that every run meets some, and in step with no backoff


@dataclass(frozen=True)
class Rule:
    """The rule by which a provider refuses calls.

    Args:
        name: for people.
        rate_429: share of attempts refused at random.
        storms: seconds from one storm to the next, and of each; everything is refused during a storm.
        window: calls let in within any window, and its seconds.
    """

    name: str
    rate_429: float = 0.0
    storms: tuple[float, float] | None = None
    window: tuple[int, float] | None = None

    @property
    def behavior(self) -> dict[str, float]:
        """The rule as options of the simulated server."""
        behavior = {"rate_429": self.rate_429}
        if self.storms is not None:
            behavior |= {"storm_every": self.storms[0], "storm_seconds": self.storms[1]}
        if self.window is not None:
            behavior |= {"limit_rpm": self.window[0], "limit_window": self.window[1]}
        return behavior

    def ideal(self, calls: int, latency: float) -> float:
        """Return the least seconds that so many calls take under the rule, any number at once."""
        if self.window is None:
            return latency
        requests, seconds = self.window
        return (ceil(calls / requests) - 1) * seconds + latency

    def allowed(self, seconds: float) -> float | None:
        """Return how many calls the rule lets in within a time; None if it sets no limit."""
        return self.window[0] * (1.0 + seconds / self.window[1]) if self.window is not None else None


@dataclass(frozen=True)
class Case:
    """A rule, the form in which its refusals state the wait, and the engine and peers that call."""

    rule: Rule
    retry_after_as: RetryAfterAs = "seconds"
    engine: Engine = "local"
    peers: int = 2

    @property
    def refusals(self) -> str:
        """The provider's side, for people."""
        return f"{self.rule.name}, Retry-After: {self.retry_after_as}"

    @property
    def name(self) -> str:
        """All of it, for people."""
        return f"{self.refusals}, {self.engine}, {self.peers} peer{'s' if self.peers > 1 else ''}"


NEVER = Rule("never")
RANDOM = {share: Rule(f"{share:.0%} at random", rate_429=share) for share in SHARES}
STORMS = {
    share: Rule(f"{share:.0%} in storms", storms=(STORM_EVERY, share * STORM_EVERY)) for share in SHARES
}
SHORT_WINDOW = Rule("60 in 2 s", window=(60, 2.0))
LONG_WINDOW = Rule("100 in 5 s", window=(100, 5.0))
RULES = (*RANDOM.values(), *STORMS.values(), SHORT_WINDOW, LONG_WINDOW)

REPRESENTATIVE = (
    Case(RANDOM[0.01], "seconds"),
    Case(RANDOM[0.05], "none"),
    Case(RANDOM[0.1], "fraction"),
    Case(RANDOM[0.2], "seconds"),
    Case(RANDOM[0.2], "year"),
    Case(STORMS[0.05], "garbage"),
    Case(STORMS[0.2], "none"),
    Case(SHORT_WINDOW, "none"),
    Case(SHORT_WINDOW, "seconds"),
    *(Case(RANDOM[0.05], "none", peers=peers) for peers in (1, 4, 8)),
    Case(RANDOM[0.05], "none", "ray"),
    Case(SHORT_WINDOW, "none", "ray"),
)


def chosen(
    *, everything: bool = False, engine: Engine | None = None, peers: int | None = None, only: str = ""
) -> Sequence[Case]:
    """The representative cases, or all of them; with that engine and so many peers, if these are given.

    Raises:
        ConfigError: if none has `only` in its name.
    """
    cases = REPRESENTATIVE
    if everything:
        each = product(RULES, get_args(RetryAfterAs), get_args(Engine), PEERS)
        cases = tuple(Case(*parts) for parts in each)
    if engine is not None:
        cases = tuple(replace(case, engine=engine) for case in cases)
    if peers is not None:
        cases = tuple(replace(case, peers=peers) for case in cases)
    found = [case for case in dict.fromkeys(cases) if only in case.name]
    if not found:
        raise ConfigError(f"no case has {only!r} in its name; one is {cases[0].name!r}")
    return found
