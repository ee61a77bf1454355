"""Conclude a session: end a drain that can only wait, check the result, and describe failures."""

import asyncio
from pathlib import Path
from shlex import quote

from peerloom.errors import EngineError
from peerloom.events import Notice
from peerloom.runtime.driver.control import RunControl, describe_wait
from peerloom.runtime.driver.health import OUTAGE_SECONDS
from peerloom.runtime.driver.quota import QuotaCoordinator
from peerloom.runtime.driver.stats import RunStats
from peerloom.sink.totals import Totals
from peerloom.task import FAILED

CHECK_SECONDS = 0.2
MAX_FULL_CHECKS = 10
"""Consecutive checks that find a full disk before a draining run stops waiting for room."""


async def end_idle_drain(control: RunControl, quota: QuotaCoordinator, stats: RunStats) -> None:
    """End a draining run that can only wait, for a service that refuses calls or for room on the disk."""
    await control.drained.wait()
    checks = full = 0  # two checks in a row, since statistics may be one interval old
    while not control.ended.is_set():
        await asyncio.sleep(CHECK_SECONDS)
        full = full + 1 if stats.stuck() else 0
        wait = control.waiting
        idle = wait is not None and stats.turns() <= wait.trying and quota.outstanding <= wait.trying
        checks = checks + 1 if wait is not None and idle and wait.until - wait.since >= OUTAGE_SECONDS else 0
        why = (
            describe_wait(wait) if wait is not None and checks == 2 else ""
        )  # statistics may be one interval old
        if full >= MAX_FULL_CHECKS:
            why = "for room on the disk"
        if why:
            control.notify(Notice("warning", f"not waiting any longer {why}: a resume goes on from here"))
            control.ended.set()


def check_complete(totals: Totals, tasks: int | None, run_dir: Path) -> None:
    """Check that an uninterrupted run has a row for every task, as the protocol guarantees.

    Raises:
        EngineError: if rows are missing.
    """
    if tasks is not None and totals.admitted != tasks:
        raise EngineError(
            f"{totals.admitted} rows are committed of {tasks} tasks. This is a defect of Peerloom, "
            f"unless the input was changed meanwhile; the log is in {run_dir}"
        )


def failures(totals: Totals, run_dir: Path) -> Notice | None:
    """Return a notice about failed tasks, or None if there are none."""
    failed = totals.outcomes.get(FAILED, 0)
    if not failed:
        return None
    why = ", ".join(f"{reason} {count}" for reason, count in sorted(totals.reasons.items()))
    text = f"{failed} of {totals.admitted} tasks failed ({why}); each row's detail says why: "
    text += str(run_dir / "rejected")
    again = f"peerloom resume {quote(str(run_dir))} --retry-failed"
    return Notice("warning", f"{text}; {again} (in Python retry_failed=True) repeats them")
