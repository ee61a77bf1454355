"""Waiting for a service that refuses calls: what to tell about it, and when a draining run gives up on it."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from peerloom.events import Notice, Progress
from peerloom.runtime.driver.quota import OUTAGE_SECONDS, QuotaCoordinator
from peerloom.runtime.driver.summary import Figures

LOOK_SECONDS = 0.2
FULL_LOOKS = 10
"""Looks at a full disk in a row, after which a run that drains does not wait for room any longer."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A wait for a service that refuses calls.

    Args:
        service: its name.
        why: its latest refusal, in its own words.
        since: when the wait began, as Unix time in seconds.
        until: when the next attempt is made, as Unix time in seconds.
        trying: attempts under way that may yet be refused.
    """

    service: str
    why: str
    since: float
    until: float
    trying: int

    @property
    def text(self) -> str:
        """The wait in words, without its end."""
        return f"for {self.service}, which refuses calls ({self.why})"


def waiting_for(quota: QuotaCoordinator) -> Waiting | None:
    """Return the wait of a run at this moment, if there is one."""
    found = quota.waiting
    if found is None:
        return None
    since, until = quota.unix(found.since), quota.unix(found.until)
    return Waiting(found.service, found.why, since, max(until, time.time()), found.trying)


def with_waiting(progress: Progress, waiting: Waiting | None) -> Progress:
    """Return a snapshot that also tells of the wait, if there is one."""
    if waiting is None:
        return progress
    return replace(progress, waiting=waiting.text, waiting_until=waiting.until)


async def leave_waiting(
    quota: QuotaCoordinator,
    drained: asyncio.Event,
    figures: Figures,
    tell: Callable[[Notice], None],
) -> None:
    """Return once a run that drains can only wait, for a service that refuses calls or for room on the disk.

    Args:
        quota: knows which service refuses calls.
        drained: set when the run begins to drain.
        figures: what the members have said last.
        tell: passes a notice to a person.
    """
    await drained.wait()
    looks = full = 0
    while looks < 2:  # figures are as old as they are
        await asyncio.sleep(LOOK_SECONDS)
        full = full + 1 if figures.stuck() else 0
        if full >= FULL_LOOKS:
            tell(Notice("warning", "not waiting any longer for room on the disk: a resume goes on from here"))
            return
        wait = waiting_for(quota)
        idle = wait is not None and figures.turns() <= wait.trying and quota.outstanding <= wait.trying
        looks = looks + 1 if wait is not None and idle and wait.until - wait.since >= OUTAGE_SECONDS else 0
        if wait is not None and looks == 2:
            tell(Notice("warning", f"not waiting any longer {wait.text}: a resume goes on from here"))
