"""Detect that a provider has become much slower."""

import math

SLOW = 3.0  # times the best time per token
SAMPLE = 100  # answers
OVERHEAD_TOKENS = 50  # tokens whose time a call takes in addition to that of its completion


class Slowness:
    """The seconds per token of one service, over all peers."""

    def __init__(self) -> None:
        self._best = math.inf
        self._answers = 0
        self._seconds = 0.0
        self._tokens = 0.0

    def add(self, answers: int, seconds: float, tokens: float) -> bool:
        """Count answers with their total seconds and tokens; return whether to reduce the calls in flight."""
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
            self._best *= 1.25  # if fewer calls in flight do not help, there are other reasons
        return slow
