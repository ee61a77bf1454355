"""Compute the rates of a run over the last half minute, and its remaining time."""

from collections import deque
from typing import NamedTuple

from peerloom.events import Progress

WINDOW_SECONDS = 30.0


class _Sample(NamedTuple):
    seconds: float
    rows: int
    calls: int
    tokens: int


class ProgressRates:
    """The rates at the latest of the snapshots, which are added in order.

    They exclude earlier sessions, and the time before the first task of this one was admitted.
    """

    def __init__(self) -> None:
        self._samples = deque([_Sample(0.0, 0, 0, 0)])
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
        self._samples.append(
            _Sample(
                seconds,
                sum(progress.outcomes.values()) - progress.earlier_rows,
                sum(agent.calls for agent in agents),
                sum(agent.completion_tokens for agent in agents),
            )
        )
        self._total = progress.total
        while len(self._samples) > 2 and self._samples[1].seconds <= seconds - WINDOW_SECONDS:
            self._samples.popleft()

    @property
    def rows(self) -> int:
        """The number of rows committed so far by all sessions."""
        return self._earlier + self._samples[-1].rows

    @property
    def rows_per_second(self) -> float:
        """Committed rows per second."""
        return self._per_second("rows")

    @property
    def tokens_per_second(self) -> float:
        """Completion tokens per second."""
        return self._per_second("tokens")

    @property
    def calls_per_second(self) -> float:
        """LLM calls per second."""
        return self._per_second("calls")

    @property
    def seconds_left(self) -> float | None:
        """The remaining time at the current rate; None before the first row, or if the total is unknown."""
        rate = self.rows_per_second
        return (self._total - self.rows) / rate if self._total is not None and rate > 0 else None

    def _per_second(self, name: str) -> float:
        oldest, newest = self._samples[0], self._samples[-1]
        elapsed = newest.seconds - oldest.seconds
        return max(0.0, (getattr(newest, name) - getattr(oldest, name)) / elapsed) if elapsed > 0 else 0.0
