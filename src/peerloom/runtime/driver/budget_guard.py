"""Suspend a run when its budget is used up, after the calls under way have finished.

Tasks in flight are neither done nor failed. Their turns are in the journal, and a session with more budget
continues them.
"""

import asyncio
from shlex import quote

from peerloom.events import Notice
from peerloom.runtime.driver.control import RunControl
from peerloom.runtime.driver.quota import QuotaCoordinator
from peerloom.runtime.driver.stats import RunStats
from peerloom.services.llm.usage.amounts import ENDLESS
from peerloom.services.llm.usage.budget import Budget

CHECK_SECONDS = 0.2


class BudgetGuard:
    """Watches the budget of one session."""

    def __init__(self, budget: Budget, control: RunControl) -> None:
        self._budget = budget
        self._control = control
        self._session = control.session
        self._why = ""

    async def run(self, quota: QuotaCoordinator, stats: RunStats) -> None:
        """Wait until the budget is used up and no call is under way, then end the session."""
        async with asyncio.TaskGroup() as group:
            waits = [group.create_task(quota.exhausted.wait())]
            if self._budget.minutes is not None:
                left = max(0.0, self._budget.minutes * 60.0 - self._session.seconds())
                waits.append(group.create_task(asyncio.sleep(left, True)))
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for waiting in waits:
                waiting.cancel()
        self._why = f"the budget is used up: {used_up(self._budget, quota, self._session.seconds())}"
        self._control.suspend(self._why)
        quiet = 0
        while quiet < 2:  # statistics may be one interval old
            await asyncio.sleep(CHECK_SECONDS)
            quiet = quiet + 1 if not stats.turns() and not quota.outstanding else 0
        self._control.ended.set()

    def conclude(self, suspended: int) -> None:
        """Notify the user of the suspended tasks, and how to continue them."""
        text = f"{self._why}. {suspended} tasks are suspended, nothing of them is lost"
        again = f"peerloom resume {quote(str(self._session.run_dir.path))} budget.<key>=<more>"
        self._control.notify(Notice("warning", f"{text}; to go on, with more of it: {again}"))


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
