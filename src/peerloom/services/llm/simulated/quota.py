"""What a strict provider allows: requests, tokens and calls at once, counted exactly; and its storms.

A request is let in if in no window of that length, wherever it begins, more would be let in than the limits
say: a sliding window, not a bucket, so whoever calls is not forgiven a burst across a minute's end. It counts
when it is let in, with the tokens that its reply will show (the simulated model knows them); what is refused
counts nothing. During a storm everything is refused. No clock in here: seconds are an argument.
"""

from collections import deque
from typing import Any, Literal, NamedTuple

Reason = Literal["storm", "requests", "tokens", "concurrency"]


class Refusal(NamedTuple):
    """A request that was not let in. `seconds` until it would be, as far as that is known."""

    reason: Reason
    seconds: float | None


class Quota:
    """One provider's limits, and what of them is used. None is no limit; seconds are by any one clock.

    Args:
        requests: that may be let in within a window.
        tokens: of prompts and replies together, of the requests let in within a window.
        concurrency: requests that may be let in and not over.
        window: its length in seconds.
        storm_every: seconds from the beginning of a storm to that of the next; the first one begins that long
            after `began`.
        storm_seconds: how long a storm lasts.
        began: when the provider opened.
    """

    def __init__(
        self,
        *,
        requests: int | None = None,
        tokens: int | None = None,
        concurrency: int | None = None,
        window: float = 60.0,
        storm_every: float | None = None,
        storm_seconds: float = 0.0,
        began: float = 0.0,
    ) -> None:
        self._requests = requests
        self._tokens = tokens
        self._concurrency = concurrency
        self._window = window
        self._storm_every = storm_every
        self._storm_seconds = storm_seconds
        self._began = began
        self._counts = requests is not None or tokens is not None
        self._let_in: deque[tuple[float, int]] = deque()  # within the window: when, and the tokens
        self._in_window = 0  # tokens of those
        self.running = 0
        self.most_running = 0
        self._most_requests = 0
        self._most_tokens = 0

    def fits(self, tokens: int) -> bool:
        """Whether a request of so many tokens could ever be let in."""
        return self._tokens is None or tokens <= self._tokens

    def enter(self, tokens: int, now: float) -> Refusal | None:
        """Let a request in, unless it has to be refused; if let in it is to `leave`."""
        refusal = self._refusal(tokens, now)
        if refusal is not None:
            return refusal
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        if self._counts:
            self._let_in.append((now, tokens))
            self._in_window += tokens
            self._most_requests = max(self._most_requests, len(self._let_in))
            self._most_tokens = max(self._most_tokens, self._in_window)
        return None

    def leave(self) -> None:
        """A request that was let in is over."""
        self.running -= 1

    def used(self, now: float) -> dict[str, Any]:
        """What is used of the limits now, and what was used at most."""
        self._forget(now)
        return {
            "seconds": self._window,
            "requests": len(self._let_in),
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
        if self._requests is not None and len(self._let_in) >= self._requests:
            requests = self._wait(len(self._let_in) - self._requests, now)
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
        """Drop what is a whole window old: at its age of exactly one window it counts no more."""
        let_in = self._let_in
        while let_in and let_in[0][0] + self._window <= now:
            self._in_window -= let_in.popleft()[1]

    def _wait_for(self, tokens: int, now: float) -> float:
        """Seconds until so many tokens have left the window."""
        for number, (_, each) in enumerate(self._let_in):
            tokens -= each
            if tokens <= 0:
                return self._wait(number, now)
        return self._window

    def _wait(self, number: int, now: float) -> float:
        """Seconds until the request of that number, from the oldest, has left the window."""
        return self._let_in[number][0] + self._window - now
