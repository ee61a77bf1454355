"""Enforce the limits of a strict provider on requests, tokens and concurrency, and simulate its storms.

Limits apply to a sliding window, so that no window of that length exceeds them, and bursts across the end of
a minute are refused. A request counts from its admission, with the tokens of its reply (which the simulated
model knows in advance); refused requests do not count. During a storm all requests are refused. The time is
an argument.
"""

from collections import deque
from typing import Any, NamedTuple

from peerloom.services.llm.simulated.behavior import SimulatorOptions

REFUSED = {
    "storm": "the provider is overloaded",
    "requests": "limit_rpm is reached",
    "tokens": "limit_tpm is reached",
    "concurrency": "limit_concurrency is reached",
}
"""The reasons for refusals, and their messages."""


class Refusal(NamedTuple):
    """A refused request, by a key of `REFUSED`, and the seconds until it would be admitted, if known."""

    reason: str
    seconds: float | None


class Quota:
    """The usage of a provider's limits.

    Args:
        options: the limits and storms.
        began: the time at which the provider opened; the first storm begins `storm_every` seconds later.
    """

    def __init__(self, options: SimulatorOptions, began: float = 0.0) -> None:
        self._requests, self._tokens = options.limit_rpm, options.limit_tpm
        self._concurrency = options.limit_concurrency
        self._window = options.limit_window
        self._storm_every, self._storm_seconds = options.storm_every, options.storm_seconds
        self._began = began
        self._counts = self._requests is not None or self._tokens is not None
        self._admitted: deque[tuple[float, int]] = deque()  # time and tokens of requests in the window
        self._in_window = 0  # tokens of these requests
        self.running = 0
        self.most_running = 0
        self._most_requests = 0
        self._most_tokens = 0

    def fits(self, tokens: int) -> bool:
        """Return whether a request with this number of tokens can ever be admitted."""
        return self._tokens is None or tokens <= self._tokens

    def enter(self, tokens: int, now: float) -> Refusal | None:
        """Admit a request, to be ended by `leave`, or return its refusal."""
        refusal = self._refusal(tokens, now)
        if refusal is not None:
            return refusal
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        if self._counts:
            self._admitted.append((now, tokens))
            self._in_window += tokens
            self._most_requests = max(self._most_requests, len(self._admitted))
            self._most_tokens = max(self._most_tokens, self._in_window)
        return None

    def leave(self) -> None:
        """End an admitted request."""
        self.running -= 1

    def used(self, now: float) -> dict[str, Any]:
        """Return the current and the maximum usage of the limits."""
        self._forget(now)
        return {
            "seconds": self._window,
            "requests": len(self._admitted),
            "tokens": self._in_window,
            "most_requests": self._most_requests,
            "most_tokens": self._most_tokens,
        }

    def _refusal(self, tokens: int, now: float) -> Refusal | None:
        if self._storms(now):
            return Refusal("storm", None)
        if self._concurrency is not None and self.running >= self._concurrency:
            return Refusal("concurrency", None)
        if not self._counts:
            return None
        self._forget(now)
        requests = tokens_wait = 0.0
        if self._requests is not None and len(self._admitted) >= self._requests:
            requests = self._wait(len(self._admitted) - self._requests, now)
        if self._tokens is not None and self._in_window + tokens > self._tokens:
            tokens_wait = self._wait_for(self._in_window + tokens - self._tokens, now)
        wait = max(requests, tokens_wait)
        return Refusal("requests" if wait == requests else "tokens", wait) if wait else None

    def _storms(self, now: float) -> bool:
        every = self._storm_every
        if every is None or now - self._began < every:
            return False
        return (now - self._began) % every < self._storm_seconds

    def _forget(self, now: float) -> None:
        """Drop requests that have left the window; at an age of exactly one window they no longer count."""
        admitted = self._admitted
        while admitted and admitted[0][0] + self._window <= now:
            self._in_window -= admitted.popleft()[1]

    def _wait_for(self, tokens: int, now: float) -> float:
        """Return the seconds until this number of tokens has left the window."""
        for number, (_, each) in enumerate(self._admitted):
            tokens -= each
            if tokens <= 0:
                return self._wait(number, now)
        return self._window

    def _wait(self, number: int, now: float) -> float:
        """Return the seconds until the request at this index, from the oldest, has left the window."""
        return self._admitted[number][0] + self._window - now
