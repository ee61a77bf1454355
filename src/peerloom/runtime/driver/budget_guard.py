"""Suspend a run when its budget is used up, after the calls under way have finished.

Tasks in flight are neither done nor failed. Their turns are in the journal, and a session with more budget
continues them.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from shlex import quote

from peerloom.events import Notice
from peerloom.runtime.driver.quota import QuotaCoordinator
from peerloom.services.llm.usage.amounts import ENDLESS
from peerloom.services.llm.usage.budget import Budget

CHECK_SECONDS = 0.2


class BudgetGuard:
    """Watches the budget of one session.

    Args:
        budget: the budget of the run.
        run_dir: the run directory, named in notices.
        seconds: returns the wall time of all sessions so far.
        pause: stops new turns from beginning.
        notify: passes a notice to the user.
    """

    def __init__(
        self,
        budget: Budget,
        run_dir: Path,
        *,
        seconds: Callable[[], float],
        pause: Callable[[str], None],
        notify: Callable[[Notice], None],
    ) -> None:
        self._budget = budget
        self._run_dir = run_dir
        self._seconds = seconds
        self._pause = pause
        self._notify = notify
        self.why = ""

    async def run(self, quota: QuotaCoordinator, turns: Callable[[], int], stop: Callable[[], None]) -> None:
        """Wait until the budget is used up and no call is under way, then end the session.

        Args:
            quota: tells when the budget is used up, and counts the calls under way.
            turns: returns the number of turns under way, without those that wait to make a call.
            stop: ends the session.
        """
        async with asyncio.TaskGroup() as group:
            waits = [group.create_task(quota.exhausted.wait())]
            if self._budget.minutes is not None:
                left = max(0.0, self._budget.minutes * 60.0 - self._seconds())
                waits.append(group.create_task(asyncio.sleep(left, True)))
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for waiting in waits:
                waiting.cancel()
        self.why = f"the budget is used up: {used_up(self._budget, quota, self._seconds())}"
        self._pause(self.why)
        quiet = 0
        while quiet < 2:  # statistics may be one interval old
            await asyncio.sleep(CHECK_SECONDS)
            quiet = quiet + 1 if not turns() and not quota.outstanding else 0
        stop()

    def conclude(self, suspended: int) -> None:
        """Notify the user of the suspended tasks, and how to continue them."""
        kept = (
            f"{self.why}. {suspended} tasks are suspended, nothing of them is lost; to go on, with more of it"
        )
        again = f"peerloom resume {quote(str(self._run_dir))} budget.<key>=<more>"
        self._notify(Notice("warning", f"{kept}: {again}"))


def used_up(budget: Budget, quota: QuotaCoordinator, seconds: float) -> str:
    """Describe the used part of the budget."""
    parts: list[str] = []
    for name, used in quota.spending.used._asdict().items():
        total = getattr(budget.amount, name)
        if total < ENDLESS:
            unit = f"{used:.4f} of {total:g} USD" if name == "usd" else f"{used:,.0f} of {total:,.0f} {name}"
            parts.append(unit)
    if budget.minutes is not None:
        parts.append(f"{seconds / 60.0:.1f} of {budget.minutes:g} minutes")
    return ", ".join(parts)
