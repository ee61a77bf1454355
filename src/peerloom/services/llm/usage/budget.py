"""The budget of a run, and what of it is spent: by members, by those that are gone, and by earlier sessions.

Whatever a member was granted and has not given back counts as used until it says what it came to. What the
whole comes to is written down before anything is granted (`ledger`), so no crash makes it smaller than it is.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from peerloom.options import FREE, Count, Options, Positive
from peerloom.services.llm.usage.amounts import ANYTHING, ENDLESS, NOTHING, Amount


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget(Options):
    """The most that a run may use over all its sessions; then it is suspended, and a resume may give it more.

    It does not decide what is in a row, so a resume may also give it less, or one that it did not have.
    """

    section: ClassVar[str] = "budget"

    usd: Annotated[Positive | None, FREE] = None
    """US dollars; the price of each model must be known, see `prices`."""
    tokens: Annotated[Count | None, FREE] = None
    """Tokens of prompts and replies together."""
    calls: Annotated[Count | None, FREE] = None
    """Calls that are answered."""
    minutes: Annotated[Positive | None, FREE] = None
    """Wall time."""

    @property
    def amount(self) -> Amount:
        """All but the minutes."""
        return Amount(
            ENDLESS, *(ENDLESS if each is None else each for each in (self.calls, self.tokens, self.usd))
        )


class Spending:
    """A budget and what of it is spent.

    Args:
        budget: the most there is.
        earlier: what earlier sessions have used.
    """

    def __init__(self, budget: Budget, earlier: Amount = NOTHING) -> None:
        self.budget = budget
        self._total = budget.amount
        self._closed = earlier  # by earlier sessions, and by members that are gone
        self._used: dict[tuple[str, str], Amount] = {}
        self._held: dict[tuple[str, str], Amount] = {}
        self._used_sum = NOTHING
        self._held_sum = NOTHING

    @property
    def limited(self) -> Amount:
        """Infinite for each resource that has no bound, 0 for those that have."""
        return Amount(*(ENDLESS if each == ENDLESS else 0.0 for each in self._total))

    @property
    def bounded(self) -> bool:
        """Whether there is any bound but time."""
        return self._total != ANYTHING

    @property
    def used(self) -> Amount:
        """What calls that are over have come to."""
        return self._closed.plus(self._used_sum)

    @property
    def held(self) -> Amount:
        """What members may use beside that: for calls under way, and granted for those to come."""
        return self._held_sum

    @property
    def left(self) -> Amount:
        """What can still be granted."""
        return self._total.plus(self.used, -1.0).plus(self._held_sum, -1.0)

    def note(self, service: str, member: str, used: Amount, held: Amount) -> None:
        """What a member has used of a service, and what it holds."""
        key = service, member
        self._used_sum = self._used_sum.plus(self._used.get(key, NOTHING), -1.0).plus(used)
        self._held_sum = self._held_sum.plus(self._held.get(key, NOTHING), -1.0).plus(held)
        self._used[key], self._held[key] = used, held

    def close(self, member: str) -> None:
        """A member has ended: what it held may have been used."""
        for key in [key for key in self._used if key[1] == member]:
            used, held = self._used.pop(key), self._held.pop(key)
            self._used_sum = self._used_sum.plus(used, -1.0)
            self._held_sum = self._held_sum.plus(held, -1.0)
            self._closed = self._closed.plus(used).plus(held)
