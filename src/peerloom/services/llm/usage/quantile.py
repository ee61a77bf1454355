"""How long an agent's replies are: a high quantile of the last ones, to reserve before the next."""

import math
from collections import deque

RESERVED = 0.95  # of replies are no longer than what is reserved

_KEPT = 512  # replies that count
_FEW = 20  # with fewer, too little is known
_EACH = 16  # replies after which the quantile is taken anew


class OutputLength:
    """The lengths of one agent's replies, in tokens."""

    def __init__(self) -> None:
        self._lengths: deque[int] = deque(maxlen=_KEPT)
        self._seen = 0
        self._high = 0.0

    def add(self, tokens: int) -> None:
        """A reply was so long."""
        self._lengths.append(tokens)
        self._seen += 1
        if self._seen % _EACH == 0 or self._seen == _FEW:
            ordered = sorted(self._lengths)
            self._high = float(ordered[math.ceil(RESERVED * len(ordered)) - 1])

    def reserve(self, limit: int | None, default: int) -> float:
        """What the next reply may take: the quantile, within its limit; the limit while little is known.

        Args:
            limit: the most tokens that were asked for, if that was said.
            default: what stands for it, if not.
        """
        most = float(limit or default)
        if self._seen < _FEW:
            return max([most, *map(float, self._lengths)]) if limit is None else most
        return min(most, self._high) if limit is not None else self._high
