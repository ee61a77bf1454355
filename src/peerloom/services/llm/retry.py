"""Asking again: which wait, how often, and when to give up.

An attempt raises `Retryable` for what may pass (a lost connection, 429, 5xx). The wait before the next
one grows exponentially up to a cap and is drawn uniformly below that ("full jitter"), so that callers
that failed together do not return together. A server's Retry-After comes on top, unless it is absurdly long.

An attempt that no server took (connection refused, model still loading), or that was refused for a limit,
says nothing about the request, so it costs time but no attempt. Time in which the whole service was away, or
refused every call, is excused.
"""

import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from peerloom.errors import ConfigError, LLMUnavailable
from peerloom.task import Usage

BELIEVED = 3
"""So many times a server's Retry-After is taken at its word before the waits grow."""
SINGLED_OUT = 30
"""A call that is refused so often, others being answered each time, is refused for what it is."""
LIMIT_CAP_SECONDS = 8.0
"""The longest drawn wait of a refused call, since a limit that others use up is free again soon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How persistent a client is. All times in seconds.

    Args:
        attempts: calls made in all, the first included, but not those that no server took or that a limit
            refused. With 1 there is a single call, whatever becomes of it.
        base: the first wait is drawn from 0 to this; it doubles with every attempt.
        cap: no drawn wait is longer.
        retry_after_cap: a longer Retry-After is ignored, so the wait is as if the server had named none.
        max_elapsed: no new attempt begins later than this after the first.
    """

    attempts: int = 8
    base: float = 0.5
    cap: float = 30.0
    retry_after_cap: float = 60.0
    max_elapsed: float = 900.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ConfigError(f"retry.attempts is {self.attempts}: use 1 for a single call without retries")
        for name in ("base", "cap", "retry_after_cap", "max_elapsed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"retry.{name} is {getattr(self, name)}: seconds cannot be negative")

    def believed(self, retry_after: float | None) -> float:
        """The seconds of a Retry-After, or 0 if there is none, or one above the cap."""
        return retry_after if retry_after is not None and retry_after <= self.retry_after_cap else 0.0


class Retryable(Exception):
    """An attempt failed in a way that may pass.

    Args:
        why: for the final error.
        retry_after: what the server asked for, in seconds.
        taken: whether a server took the request.
        limit: whether it was refused for a limit on how much may be asked, not for what it is.
        overload: whether another replica might have had room for it.
        usage: what it has used, if it was answered in a way that cannot be taken.
        notice: what a person is to be told, once.
    """

    def __init__(
        self,
        why: str,
        retry_after: float | None = None,
        *,
        taken: bool = True,
        limit: bool = False,
        overload: bool = False,
        usage: Usage | None = None,
        notice: str = "",
    ) -> None:
        super().__init__(why)
        self.notice = notice
        self.usage = usage
        self.retry_after = retry_after
        self.taken = taken
        self.limit = limit
        self.overload = overload


class Tries:
    """One call's tries so far, after it has failed once. `what` names the thing called, for the final error.

    Args:
        policy: how persistent to be.
        what: what is called.
        began: when its first try began, by `clock`.
        clock: seconds.
        uniform: draws a number between two others.
    """

    __slots__ = (
        "_clock",
        "_failed_at",
        "_refused_at",
        "_uniform",
        "began",
        "made",
        "policy",
        "singled",
        "taken",
        "what",
    )

    def __init__(
        self,
        policy: Retry,
        what: str,
        began: float,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.policy = policy
        self.what = what
        self.began = began
        self._clock = clock
        self._uniform = uniform
        self._refused_at = math.inf
        self._failed_at = began
        self.made = 0
        self.taken = 0
        self.singled = 0  # refusals since the last of which others were answered

    def excuse(self, seconds: float) -> None:
        """Time that does not count: nobody could have answered then."""
        self.began += seconds

    def wait(self, failure: Retryable, answering: float = -math.inf, *, others_fail: bool = False) -> float:
        """Count a failed try and return the seconds to wait before the next one.

        A try says nothing about the call if other calls fail too, though the service has answered before,
        and none was answered since this call's last failure: then the try is not counted, only its time.

        Args:
            failure: how it failed.
            answering: when another call was answered last.
            others_fail: whether other calls have failed and wait for their next try.

        Raises:
            LLMUnavailable: if there is to be none, with the failure.
        """
        policy = self.policy
        self.made += 1
        outage = others_fail and failure.usage is None and -math.inf < answering <= self._failed_at
        self.taken += failure.taken and not failure.limit and not outage
        self._failed_at = self._clock()
        if failure.limit:
            self.singled += answering > self._refused_at
            self._refused_at = self._clock()
        asked = policy.believed(failure.retry_after)
        doublings = self.made - 1 - (BELIEVED if asked else 0)
        cap = min(policy.cap, LIMIT_CAP_SECONDS) if failure.limit else policy.cap
        wait = asked + self._uniform(0.0, min(cap, policy.base * 2.0 ** max(-2, min(doublings, 32))))
        elapsed = self._clock() - self.began
        over = self.taken >= policy.attempts or self.singled >= SINGLED_OUT or policy.attempts == 1
        if over or elapsed + wait > policy.max_elapsed:
            tries = "1 attempt" if self.made == 1 else f"{self.made} attempts"
            raise LLMUnavailable(
                f"{self.what} did not answer in {tries} over {elapsed:.1f} s; last: {failure}"
            ) from failure
        return wait


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """The wait in seconds that response headers ask for, or None. `now` is Unix time.

    Understands `retry-after-ms`, and `Retry-After` in seconds or as an HTTP date.
    """
    millis = _number(headers.get("retry-after-ms"))
    if millis is not None:
        return millis / 1000.0
    value = headers.get("Retry-After")
    if value is None:
        return None
    seconds = _number(value)
    if seconds is not None:
        return seconds
    try:
        date = parsedate_to_datetime(value)
        return max(0.0, date.replace(tzinfo=date.tzinfo or UTC).timestamp() - now)
    except (ValueError, OverflowError):  # a year or a zone out of range
        return None


def _number(value: str | None) -> float | None:
    try:
        number = float(value) if value is not None else -1.0
    except ValueError:
        return None
    return number if 0.0 <= number < float("inf") else None
