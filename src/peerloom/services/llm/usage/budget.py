"""Track the budget of a run and its usage by members, by lost members and by earlier sessions.

Quota granted to a member counts as used until the member settles or returns it. The total is written to the
ledger before quota is granted, so a crash never loses usage.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from peerloom.options import FREE, Count, Options, Positive
from peerloom.services.llm.usage.amounts import ANYTHING, ENDLESS, NOTHING, Amount


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget(Options):
    """The budget of a run over all its sessions. A run that has used it up is suspended, and may be resumed.

    The budget does not affect the content of rows, so a resume may add, raise or lower it.
    """

    section: ClassVar[str] = "budget"

    usd: Annotated[Positive | None, FREE] = None
    """US dollars; the price of each model must be known (see `prices`)."""
    tokens: Annotated[Count | None, FREE] = None
    """Tokens of prompts and replies together."""
    calls: Annotated[Count | None, FREE] = None
    """Answered calls."""
    minutes: Annotated[Positive | None, FREE] = None
    """Wall time."""

    @property
    def amount(self) -> Amount:
        """The budget without the minutes."""
        return Amount(
            ENDLESS, *(ENDLESS if each is None else each for each in (self.calls, self.tokens, self.usd))
        )


class Spending:
    """A budget and its usage.

    Args:
        budget: the budget of the run.
        earlier: the usage of earlier sessions.
    """

    def __init__(self, budget: Budget, earlier: Amount = NOTHING) -> None:
        self.budget = budget
        self._total = budget.amount
        self._closed = earlier  # usage by earlier sessions and by members that have ended
        self._used: dict[tuple[str, str], Amount] = {}
        self._held: dict[tuple[str, str], Amount] = {}
        self._used_sum = NOTHING
        self._held_sum = NOTHING

    @property
    def unlimited(self) -> Amount:
        """An amount that is infinite for each resource without a budget and 0 for the others."""
        return Amount(*(ENDLESS if each == ENDLESS else 0.0 for each in self._total))

    @property
    def bounded(self) -> bool:
        """Whether any resource other than time is limited."""
        return self._total != ANYTHING

    @property
    def used(self) -> Amount:
        """The usage of ended calls."""
        return self._closed.plus(self._used_sum)

    @property
    def held(self) -> Amount:
        """The amount that members may use in addition, for outstanding and for future calls."""
        return self._held_sum

    @property
    def left(self) -> Amount:
        """The amount that can still be granted."""
        return self._total.plus(self.used, -1.0).plus(self._held_sum, -1.0)

    def record(self, service: str, member: str, used: Amount, held: Amount) -> None:
        """Set the amounts that a member has used of a service and holds."""
        key = service, member
        self._used_sum = self._used_sum.plus(self._used.get(key, NOTHING), -1.0).plus(used)
        self._held_sum = self._held_sum.plus(self._held.get(key, NOTHING), -1.0).plus(held)
        self._used[key], self._held[key] = used, held

    def close(self, member: str) -> None:
        """Count the amount held by an ended member as used, since it may have been."""
        for key in [key for key in self._used if key[1] == member]:
            used, held = self._used.pop(key), self._held.pop(key)
            self._used_sum = self._used_sum.plus(used, -1.0)
            self._held_sum = self._held_sum.plus(held, -1.0)
            self._closed = self._closed.plus(used).plus(held)
