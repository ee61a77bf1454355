"""Retry failed calls with exponential backoff and jitter.

An attempt raises `Retryable` for a transient failure (a lost connection, 429, 5xx). The wait before the next
attempt is drawn uniformly from 0 to a bound that doubles up to a cap ("full jitter"), so that calls that
failed together do not retry together. A server's Retry-After is added, unless it exceeds a cap.

An attempt that no server accepted (connection refused, model still loading), or that was refused for a rate
limit, does not count as an attempt, but its time counts. Time during which the whole service was unavailable,
or refused every call, does not count.
"""

import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime

from peerloom.errors import ConfigError, LLMUnavailable
from peerloom.services.llm.base import total
from peerloom.task import Usage

TRUSTED_RETRY_AFTERS = 3
"""The number of attempts with a Retry-After before the drawn waits grow."""
MAX_LONE_REFUSALS = 30
"""The number of refusals, while other calls are answered, after which a call fails."""
LIMIT_CAP_SECONDS = 8.0
"""The backoff cap of a call refused for a rate limit: a limit used up by other calls is soon free again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """The retry policy of a client. All times in seconds.

    Args:
        attempts: the maximum number of attempts, including the first, but not those that no server accepted
            or that were refused for a rate limit. With 1 a call is never retried.
        base: the upper bound of the first wait; it doubles with every attempt.
        cap: the upper bound of every drawn wait.
        retry_after_cap: the longest Retry-After that is honored; a longer one is ignored.
        max_elapsed: the time after the first attempt from which no new attempt begins.
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

    def honored(self, retry_after: float | None) -> float:
        """Return the seconds of a Retry-After, or 0 if there is none or it exceeds the cap."""
        return retry_after if retry_after is not None and retry_after <= self.retry_after_cap else 0.0


class Retryable(Exception):
    """A transient failure of an attempt.

    Args:
        why: the reason, for the final error.
        retry_after: the wait the server asked for, in seconds.
        taken: whether a server accepted the request.
        limit: whether the request was refused for a rate limit rather than for its content.
        overload: whether another replica might have had capacity for it.
        usage: the usage of the attempt, if it was answered with an unusable reply.
        notice: a message to show to the user once.
        replica: the name of the replica that failed.
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
        replica: str = "",
    ) -> None:
        super().__init__(why)
        self.notice = notice
        self.replica = replica
        self.usage = usage
        self.retry_after = retry_after
        self.taken = taken
        self.limit = limit
        self.overload = overload


@dataclass(slots=True)
class RetryState:
    """The attempts of one call to `target`, from its first failure on; at first `failed_at` is its start.

    `avoid` are the replicas that failed it, `denied` the times at which replicas denied it, and `usage` is
    that of its failed attempts.
    """

    policy: Retry
    target: str
    failed_at: float
    clock: Callable[[], float] = time.monotonic
    uniform: Callable[[float, float], float] = random.uniform
    refused_at: float = math.inf
    made: int = 0
    counted: int = 0
    lone_refusals: int = 0
    """Refusals between which other calls were answered."""
    avoid: tuple[str, ...] = ()
    denied: dict[str, float] = field(default_factory=dict[str, float])
    usage: Usage | None = None

    def wait(
        self, failure: Retryable, began: float, answering: float = -math.inf, *, others_fail: bool = False
    ) -> float:
        """Count a failed attempt and return the seconds to wait before the next one.

        The attempt is not counted, but its time is, during an outage: the service has answered before, other
        calls fail too, and none was answered since this call's last failure.

        Args:
            failure: the failure of the attempt.
            began: the beginning of the call, later by the time that does not count.
            answering: the time at which another call was last answered.
            others_fail: whether other calls have failed and wait for their next attempt.

        Raises:
            LLMUnavailable: if attempts or time are used up, with the failure.
        """
        policy = self.policy
        self.made += 1
        self.avoid = self.avoid if failure.replica in self.avoid else (*self.avoid, failure.replica)
        self.usage = total(self.usage, failure.usage)
        outage = others_fail and failure.usage is None and -math.inf < answering <= self.failed_at
        self.counted += failure.taken and not failure.limit and not outage
        self.failed_at = self.clock()
        if failure.limit:
            self.lone_refusals += answering > self.refused_at
            self.refused_at = self.clock()
        asked = policy.honored(failure.retry_after)
        doublings = self.made - 1 - (TRUSTED_RETRY_AFTERS if asked else 0)
        cap = min(policy.cap, LIMIT_CAP_SECONDS) if failure.limit else policy.cap
        wait = asked + self.uniform(0.0, min(cap, policy.base * 2.0 ** max(-2, min(doublings, 32))))
        elapsed = self.clock() - began
        used_up = self.counted >= policy.attempts or self.lone_refusals >= MAX_LONE_REFUSALS
        if used_up or policy.attempts == 1 or elapsed + wait > policy.max_elapsed:
            attempts = "1 attempt" if self.made == 1 else f"{self.made} attempts"
            raise LLMUnavailable(
                f"{self.target} did not answer in {attempts} over {elapsed:.1f} s; last: {failure}"
            ) from failure
        return wait


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the wait in seconds that response headers ask for, or None. `now` is Unix time.

    Supported are `retry-after-ms`, and `Retry-After` in seconds or as an HTTP date.
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
    except (ValueError, OverflowError):  # the year or time zone is out of range
        return None


def _number(value: str | None) -> float | None:
    try:
        number = float(value) if value is not None else -1.0
    except ValueError:
        return None
    return number if 0.0 <= number < float("inf") else None
