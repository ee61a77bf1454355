"""Notice that a provider answers much more slowly than it did."""

import math

SLOW = 3.0  # times the best
SAMPLE = 100  # answers
OVERHEAD_TOKENS = 50  # that a call takes the time of, beside those it writes


class Slowness:
    """The seconds per token of one service, over all peers."""

    def __init__(self) -> None:
        self._best = math.inf
        self._answers = 0
        self._seconds = 0.0
        self._tokens = 0.0

    def add(self, answers: int, seconds: float, tokens: float) -> bool:
        """Count answers with their summed seconds and tokens; whether fewer calls should be in flight."""
        self._answers += answers
        self._seconds += seconds
        self._tokens += tokens
        if self._answers < SAMPLE:
            return False
        slowness = self._seconds / (self._tokens + self._answers * OVERHEAD_TOKENS)
        self._answers, self._seconds, self._tokens = 0, 0.0, 0.0
        self._best = min(self._best * 1.02, slowness)
        slow = slowness > SLOW * self._best
        if slow:
            self._best *= 1.25  # if fewer calls do not help, it is slow for other reasons
        return slow
