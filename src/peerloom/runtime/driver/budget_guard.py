"""Putting a run aside when its budget is used up: calls under way are finished, tasks that wait are kept.

The tasks in flight are neither done nor failed: their turns are in the journal, and a session with more
budget goes on with them.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from shlex import quote

from peerloom.events import Notice
from peerloom.runtime.driver.quota import QuotaCoordinator
from peerloom.services.llm.usage.amounts import ENDLESS
from peerloom.services.llm.usage.budget import Budget

LOOK_SECONDS = 0.2


class BudgetGuard:
    """Of one session.

    Args:
        budget: of the run.
        run_dir: for what people are told.
        seconds: how long all sessions have taken so far.
        pause: has no turn begin any more.
        tell: a notice for whoever watches.
    """

    def __init__(
        self,
        budget: Budget,
        run_dir: Path,
        *,
        seconds: Callable[[], float],
        pause: Callable[[str], None],
        tell: Callable[[Notice], None],
    ) -> None:
        self._budget = budget
        self._run_dir = run_dir
        self._seconds = seconds
        self._pause = pause
        self._tell = tell
        self.why = ""

    async def run(self, quota: QuotaCoordinator, turns: Callable[[], int], over: Callable[[], None]) -> None:
        """Wait for the end of the budget, then until nothing is under way, then end the session.

        Args:
            quota: says when nothing is left, and what is under way.
            turns: under way at this moment, those that wait for a call left out.
            over: ends the session.
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
        while quiet < 2:  # figures are as old as they are
            await asyncio.sleep(LOOK_SECONDS)
            quiet = quiet + 1 if not turns() and not quota.outstanding else 0
        over()

    def conclude(self, suspended: int) -> None:
        """Tell what is kept for later."""
        kept = (
            f"{self.why}. {suspended} tasks are suspended, nothing of them is lost; to go on, with more of it"
        )
        again = f"peerloom resume {quote(str(self._run_dir))} budget.<key>=<more>"
        self._tell(Notice("warning", f"{kept}: {again}"))


def used_up(budget: Budget, quota: QuotaCoordinator, seconds: float) -> str:
    """What was used of what there was, for people."""
    parts: list[str] = []
    for name, used in quota.spending.used._asdict().items():
        total = getattr(budget.amount, name)
        if total < ENDLESS:
            unit = f"{used:.4f} of {total:g} USD" if name == "usd" else f"{used:,.0f} of {total:,.0f} {name}"
            parts.append(unit)
    if budget.minutes is not None:
        parts.append(f"{seconds / 60.0:.1f} of {budget.minutes:g} minutes")
    return ", ".join(parts)
