"""Describe the wait for a service that refuses calls, and end the wait of a draining run."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from peerloom.events import Notice, Progress
from peerloom.runtime.driver.quota import OUTAGE_SECONDS, QuotaCoordinator
from peerloom.runtime.driver.summary import RunStats

CHECK_SECONDS = 0.2
MAX_FULL_CHECKS = 10
"""Consecutive checks that find a full disk before a draining run stops waiting for room."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A wait for a service that refuses calls.

    Args:
        service: its name.
        why: the text of its latest refusal.
        since: the Unix time at which the wait began.
        until: the Unix time of the next attempt.
        trying: the number of attempts under way that may yet be refused.
    """

    service: str
    why: str
    since: float
    until: float
    trying: int

    @property
    def text(self) -> str:
        """A description of the wait, without its end."""
        return f"for {self.service}, which refuses calls ({self.why})"


def waiting_for(quota: QuotaCoordinator) -> Waiting | None:
    """Return the present wait of a run, or None."""
    found = quota.waiting
    if found is None:
        return None
    since, until = quota.unix(found.since), quota.unix(found.until)
    return Waiting(found.service, found.why, since, max(until, time.time()), found.trying)


def with_waiting(progress: Progress, waiting: Waiting | None) -> Progress:
    """Return a snapshot that includes the wait, if there is one."""
    if waiting is None:
        return progress
    return replace(progress, waiting=waiting.text, waiting_until=waiting.until)


async def leave_waiting(
    quota: QuotaCoordinator,
    drained: asyncio.Event,
    stats: RunStats,
    notify: Callable[[Notice], None],
) -> None:
    """Return once a draining run can only wait, for a service that refuses calls or for room on the disk.

    Args:
        quota: tells which service refuses calls.
        drained: set when the run begins to drain.
        stats: the statistics of the members.
        notify: passes a notice to the user.
    """
    await drained.wait()
    checks = full = 0
    while checks < 2:  # statistics may be one interval old
        await asyncio.sleep(CHECK_SECONDS)
        full = full + 1 if stats.stuck() else 0
        if full >= MAX_FULL_CHECKS:
            notify(
                Notice("warning", "not waiting any longer for room on the disk: a resume goes on from here")
            )
            return
        wait = waiting_for(quota)
        idle = wait is not None and stats.turns() <= wait.trying and quota.outstanding <= wait.trying
        checks = checks + 1 if wait is not None and idle and wait.until - wait.since >= OUTAGE_SECONDS else 0
        if wait is not None and checks == 2:
            notify(Notice("warning", f"not waiting any longer {wait.text}: a resume goes on from here"))
