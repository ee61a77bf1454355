"""What tokens cost."""

from dataclasses import dataclass

from peerloom.task import Usage

_MILLION = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Of one model, in US dollars for a million tokens.

    Args:
        prompt: sent.
        completion: received.
        cached: the part of the prompt that the server had in its cache; None if that costs the same.
    """

    prompt: float
    completion: float
    cached: float | None = None

    def cost(self, usage: Usage) -> float:
        """Dollars."""
        cached = min(usage.cached, usage.prompt)
        fresh = usage.prompt - cached
        per_cached = self.prompt if self.cached is None else self.cached
        return (fresh * self.prompt + cached * per_cached + usage.completion * self.completion) / _MILLION
