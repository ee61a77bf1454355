"""Decide when to send a second (hedged) request for a slow call.

Most calls take about the same time. A call that takes longer than a high percentile of them is often queued
behind others, and a second request to another replica overtakes it (Dean and Barroso, "The Tail at Scale",
2013).
"""

from collections import deque
from dataclasses import dataclass
from typing import Annotated, ClassVar

from peerloom.options import FREE, Count, Options, Part

_KEPT = 512  # latest durations
_EACH = 32  # calls between two computations of the percentile


@dataclass(frozen=True, slots=True, kw_only=True)
class Hedge(Options):
    """When a second request is sent for a slow call; the first reply counts."""

    section: ClassVar[str] = "llm.hedge"

    percentile: Annotated[Part, FREE] = 0.95
    """The percentile of call durations after which a call counts as slow."""
    share: Annotated[Part, FREE] = 0.05
    """The maximum share of calls with a second request."""
    after: Annotated[Count, FREE] = 100
    """The number of calls to observe before the first second request."""


class Hedging:
    """The call durations and second requests of one client."""

    def __init__(self, hedge: Hedge) -> None:
        self._hedge = hedge
        self._seconds: deque[float] = deque(maxlen=_KEPT)
        self._calls = 0
        self._hedged = 0
        self._delay: float | None = None

    def took(self, seconds: float) -> None:
        """Record the duration of an answered call."""
        self._seconds.append(seconds)
        self._calls += 1
        if self._calls >= self._hedge.after and self._calls % _EACH == 0:
            ordered = sorted(self._seconds)
            self._delay = ordered[int(self._hedge.percentile * (len(ordered) - 1))]

    @property
    def delay(self) -> float | None:
        """The seconds after which to send a second request; None if none is to be sent."""
        return self._delay if self._hedged < self._hedge.share * self._calls else None

    def sent(self) -> None:
        """Count a second request."""
        self._hedged += 1
