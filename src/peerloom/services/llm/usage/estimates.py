"""Estimate the usage of a call before it is made, from the usage of earlier calls of the role.

Prompt tokens are estimated from the text and corrected by the observed ratio to the server's counts.
Completion tokens are a high quantile of the role's replies, or the token limit while there are too few.
"""

import math
from collections import deque

from peerloom.services.llm.base import ChatRequest, EmbedRequest, text_of
from peerloom.services.llm.usage.amounts import Amount
from peerloom.services.llm.usage.prices import Price
from peerloom.services.llm.usage.tokens import estimate_tokens
from peerloom.task import Usage

DEFAULT_OUTPUT = 512  # assumed completion tokens while there are no replies and no token limit

RESERVED = 0.95  # the share of replies that fit into the reserved length

_KEPT = 512  # latest replies
_FEW = 20  # replies below which the quantile is not used
_EACH = 16  # replies between two computations of the quantile
_PART_TOKENS = 800.0  # of an image or audio part
_MESSAGE_TOKENS = 4.0
_SMOOTH = 0.05


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
        """Return the tokens to reserve for the next reply: the quantile, or the limit after few replies."""
        bound = float(limit or default)
        if self._seen < _FEW:
            return max([bound, *map(float, self._lengths)]) if limit is None else bound
        return min(bound, self._high) if limit is not None else self._high


class Estimates:
    """The estimates of one service. `price` is the price of its tokens, if known."""

    def __init__(self, price: Price | None) -> None:
        self._price = price
        self._outputs: dict[str, OutputLength] = {}
        self._ratio = 1.0

    def need(self, request: ChatRequest | EmbedRequest) -> Amount:
        """Return the estimated usage of a call."""
        if isinstance(request, EmbedRequest):
            prompt, output = float(sum(map(estimate_tokens, request.texts))), 0.0
        else:
            prompt = _prompt(request)
            known = self._outputs.get(request.role)
            limit = request.max_tokens
            output = float(limit or DEFAULT_OUTPUT) if known is None else known.reserve(limit, DEFAULT_OUTPUT)
        prompt *= self._ratio
        usd = self._price.cost(Usage(int(prompt), int(output), 0, 1)) if self._price is not None else 0.0
        return Amount(1.0, 1.0, prompt + output, usd)

    def learn(self, request: ChatRequest | EmbedRequest, usage: Usage) -> None:
        """Update the estimates from the usage of a call."""
        if isinstance(request, EmbedRequest):
            return
        known = self._outputs.get(request.role)
        if known is None:
            known = self._outputs[request.role] = OutputLength()
        known.add(usage.completion)
        estimated = _prompt(request)
        if estimated > 0 and usage.prompt > 0:
            ratio = min(4.0, max(0.25, usage.prompt / estimated))
            self._ratio += _SMOOTH * (ratio - self._ratio)


def _prompt(request: ChatRequest) -> float:
    parts = sum(
        len(message["content"]) for message in request.messages if isinstance(message.get("content"), list)
    )
    text = estimate_tokens(text_of(request.messages))
    return text + _MESSAGE_TOKENS * len(request.messages) + _PART_TOKENS * parts
