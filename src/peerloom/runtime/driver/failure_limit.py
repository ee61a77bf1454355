"""Stop a run whose rows fail: more than `max_failed`, or all of the first ones."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from shlex import quote

from peerloom.errors import RowError
from peerloom.events import Notice
from peerloom.runtime.driver.control import RunControl
from peerloom.runtime.driver.stats import RunStats
from peerloom.sink.layout import REJECTED
from peerloom.sink.read import list_extents, parse_lines
from peerloom.sink.totals import Totals
from peerloom.task import FAILED

FIRST_ROWS = 20
"""Finished rows before a share is evaluated, and before a run without a good row is stopped."""

CHECK_SECONDS = 0.1
MAX_ROWS_READ = 1000  # rejected rows from which the most common reason is taken
DETAIL_CHARACTERS = 300


class FailureLimit:
    """Watches the failed rows of one session.

    Args:
        max_failed: the number or share of rows that may fail; None stops the session if its first rows all
            failed. Malformed rows (`bad_row`) count only if this is given: they cost nothing, and finish
            before the others.
        control: drains the run.
        stats: the totals of all sessions, and of earlier ones, which do not count.
    """

    def __init__(self, max_failed: float | None, control: RunControl, stats: RunStats) -> None:
        self._max_failed = max_failed
        self._control = control
        self._stats = stats
        self._run_dir = control.session.run_dir.path
        self.stopped = False
        self.why = ""  # why the session has failed, if it has

    async def watch(self) -> None:
        """Drain the session as soon as too many of its own rows have failed."""
        while True:
            if self._exceeded(self._stats.totals()):
                break
            await asyncio.sleep(CHECK_SECONDS)
        self.stopped = True
        failed, finished, _ = self._own(self._stats.totals())
        reason = await asyncio.to_thread(most_common, self._run_dir)
        self.why = f"stopped: {failed} of {finished} finished rows failed ({self._limit()}). {reason}"
        self._control.notify(Notice("error", f"{self.why}. Tasks in flight are finished. {self._advice()}"))
        self._control.drain()

    def judge(self, outcomes: Mapping[str, int]) -> str:
        """Return why a completed session has failed, from all outcomes, and notify the user. Blocks."""
        failed = outcomes.get(FAILED, 0)
        if not failed:
            return ""
        if failed == sum(outcomes.values()):
            self.why = "the only row failed" if failed == 1 else f"all {failed} rows failed"
        elif self._exceeds(failed - self._stats.earlier.outcomes.get(FAILED, 0), self._finished(outcomes)):
            self.why = f"{failed} rows failed ({self._limit()})"
        if self.why:
            self.why += f". {most_common(self._run_dir)}"
            self._control.notify(Notice("error", f"{self.why}. {self._advice()}"))
        return self.why

    def report(self) -> dict[str, str]:
        """Return the summary's entry with the reason of the failure, if the session failed."""
        return {"error": self.why} if self.why else {}

    def _exceeded(self, totals: Totals) -> bool:
        failed, finished, bad = self._own(totals)
        if self._max_failed is None:
            return finished == failed and failed - bad >= FIRST_ROWS
        return (isinstance(self._max_failed, int) or finished >= FIRST_ROWS) and self._exceeds(
            failed, finished
        )

    def _exceeds(self, failed: int, finished: int) -> bool:
        if self._max_failed is None:
            return False
        return failed > (
            self._max_failed if isinstance(self._max_failed, int) else self._max_failed * finished
        )

    def _own(self, totals: Totals) -> tuple[int, int, int]:
        """Count the failed, the finished and the malformed rows of this session."""
        failed = totals.outcomes.get(FAILED, 0) - self._stats.earlier.outcomes.get(FAILED, 0)
        bad = totals.reasons.get(RowError.reason, 0) - self._stats.earlier.reasons.get(RowError.reason, 0)
        return failed, self._finished(totals.outcomes), max(0, bad)

    def _finished(self, outcomes: Mapping[str, int]) -> int:
        return sum(outcomes.values()) - self._stats.earlier.admitted

    def _limit(self) -> str:
        if self._max_failed is None:
            return "none of the first was good; max_failed changes this limit"
        return f"max_failed={self._max_failed}"

    def _advice(self) -> str:
        return (
            f"Each row's detail is in {self._run_dir / REJECTED}. Once the cause is fixed, peerloom resume "
            f"{quote(str(self._run_dir))} --retry-failed (in Python retry_failed=True) repeats them"
        )


def most_common(run_dir: Path) -> str:
    """Name the most common reason of the failed rows, with its number and an example. Blocks."""
    extents = reversed(list_extents(run_dir, REJECTED))
    lines = islice((row for extent in extents for row in parse_lines(extent)), MAX_ROWS_READ)
    found = [(row["reason"], row.get("detail", "")) for row in lines if row["outcome"] == FAILED]
    if not found:
        return "Their rows are not readable yet"
    reason, number = Counter(reason for reason, _ in found).most_common(1)[0]
    details = Counter(detail for each, detail in found if each == reason)
    detail = str(details.most_common(1)[0][0])
    shown = detail if len(detail) <= DETAIL_CHARACTERS else f"{detail[:DETAIL_CHARACTERS]}..."
    return f"Most common reason: {reason} ({number} of {len(found)} failed rows), e.g. {shown}"
