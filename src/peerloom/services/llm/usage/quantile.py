"""Track a high quantile of the lengths of a role's latest replies, to reserve for the next one."""

import math
from collections import deque

RESERVED = 0.95  # the share of replies that fit into the reserved length

_KEPT = 512  # latest replies
_FEW = 20  # replies below which the quantile is not used
_EACH = 16  # replies between two computations of the quantile


class OutputLength:
    """The lengths of one role's replies, in tokens."""

    def __init__(self) -> None:
        self._lengths: deque[int] = deque(maxlen=_KEPT)
        self._seen = 0
        self._high = 0.0

    def add(self, tokens: int) -> None:
        """Record the length of a reply."""
        self._lengths.append(tokens)
        self._seen += 1
        if self._seen % _EACH == 0 or self._seen == _FEW:
            ordered = sorted(self._lengths)
            self._high = float(ordered[math.ceil(RESERVED * len(ordered)) - 1])

    def reserve(self, limit: int | None, default: int) -> float:
        """Return the tokens to reserve for the next reply: the quantile, or the limit after few replies.

        Args:
            limit: the token limit of the request, if any.
            default: the limit assumed for a request without one.
        """
        bound = float(limit or default)
        if self._seen < _FEW:
            return max([bound, *map(float, self._lengths)]) if limit is None else bound
        return min(bound, self._high) if limit is not None else self._high
