"""Compute the rates of a run over the last half minute, and its remaining time."""

from collections import deque
from typing import NamedTuple

from peerloom.events import Progress

WINDOW_SECONDS = 30.0


class Figures(NamedTuple):
    """Committed rows, LLM calls, and completion tokens."""

    rows: float = 0
    calls: float = 0
    tokens: float = 0


class ProgressRates:
    """The rates at the latest of the snapshots, which are added in order.

    They exclude earlier sessions, and the time before the first task of this one was admitted.
    """

    def __init__(self) -> None:
        self._samples = deque([(0.0, Figures())])
        self._has_snapshot = self._has_begun = False
        self._earlier = 0
        self._total: int | None = None

    def add(self, progress: Progress) -> None:
        """Add the next snapshot."""
        agents = progress.agents.values()
        self._earlier = progress.earlier_rows
        seconds = progress.seconds - progress.earlier_seconds
        if not self._has_begun:  # the start of the engine and the model does not count
            self._has_begun = progress.admitted > progress.earlier_rows
            if not self._has_begun or not self._has_snapshot:
                self._samples.clear()
        self._has_snapshot = True
        figures = Figures(
            sum(progress.outcomes.values()) - progress.earlier_rows,
            sum(agent.calls for agent in agents),
            sum(agent.completion_tokens for agent in agents),
        )
        self._samples.append((seconds, figures))
        self._total = progress.total
        while len(self._samples) > 2 and self._samples[1][0] <= seconds - WINDOW_SECONDS:
            self._samples.popleft()

    @property
    def rows(self) -> int:
        """The number of rows committed so far by all sessions."""
        return self._earlier + int(self._samples[-1][1].rows)

    @property
    def per_second(self) -> Figures:
        """The figures per second."""
        (oldest, old), (newest, new) = self._samples[0], self._samples[-1]
        elapsed = newest - oldest
        return Figures(
            *(max(0.0, (b - a) / elapsed) if elapsed > 0 else 0.0 for a, b in zip(old, new, strict=True))
        )

    @property
    def seconds_left(self) -> float | None:
        """The remaining time at the current rate; None before the first row, or if the total is unknown."""
        rate = self.per_second.rows
        return (self._total - self.rows) / rate if self._total is not None and rate > 0 else None
