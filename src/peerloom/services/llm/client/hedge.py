"""A second request beside one that is slow: when it is sent, and whose reply counts.

Most calls of a kind take about as long; one that takes longer than a high percentile of them is often stuck
behind others, and a second request elsewhere overtakes it (Dean and Barroso, "The Tail at Scale", 2013).
"""

from collections import deque
from dataclasses import dataclass
from typing import Annotated, ClassVar

from peerloom.options import FREE, Count, Options, Part

_KEPT = 512  # calls whose time is remembered
_EACH = 32  # calls after which the percentile is taken anew


@dataclass(frozen=True, slots=True, kw_only=True)
class Hedge(Options):
    """When a second request is sent beside one that is slow; the first reply counts."""

    section: ClassVar[str] = "llm.hedge"

    percentile: Annotated[Part, FREE] = 0.95
    """Of the times that calls have taken; later than that."""
    share: Annotated[Part, FREE] = 0.05
    """Of all calls, at most."""
    after: Annotated[Count, FREE] = 100
    """So many calls must have been seen."""


class Hedging:
    """What one client's calls have taken."""

    def __init__(self, hedge: Hedge) -> None:
        self._hedge = hedge
        self._seconds: deque[float] = deque(maxlen=_KEPT)
        self._calls = 0
        self._second = 0
        self._delay: float | None = None

    def took(self, seconds: float) -> None:
        """A call has been answered."""
        self._seconds.append(seconds)
        self._calls += 1
        if self._calls >= self._hedge.after and self._calls % _EACH == 0:
            ordered = sorted(self._seconds)
            self._delay = ordered[int(self._hedge.percentile * (len(ordered) - 1))]

    @property
    def delay(self) -> float | None:
        """Seconds after which a second request is to be sent; None while that is not to be."""
        return self._delay if self._second < self._hedge.share * self._calls else None

    def sent(self) -> None:
        """A second request has been sent."""
        self._second += 1
