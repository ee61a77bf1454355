"""Ending a run whose rows fail: the limit `max_failed`, and runs without a single good row."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from shlex import quote

from peerloom.errors import RowError
from peerloom.events import Notice
from peerloom.sink.layout import REJECTED
from peerloom.sink.read import list_extents, parse_lines
from peerloom.sink.totals import Totals
from peerloom.task import FAILED

FIRST_ROWS = 20
"""Finished rows before a share of them is judged, and before a run without a good row is stopped."""

LOOK_SECONDS = 0.1
MOST_READ = 1000  # rejected rows from which the most common reason is taken
DETAIL_CHARACTERS = 300


class FailureLimit:
    """Watches the failed rows of one session.

    Args:
        most: `max_failed`: how many rows may fail, or which share of them; None stops the session if its
            first rows all failed. Malformed rows (`bad_row`) count for a given limit only: they cost nothing,
            and are finished before the others.
        run_dir: where the rows are.
        tell: passes a notice to a person.

    Attributes:
        earlier: what other sessions have committed, which is left out.
        stopped: whether the session was stopped for its failed rows.
        why: why it failed; empty if it did not.
    """

    def __init__(self, most: float | None, run_dir: Path, tell: Callable[[Notice], None]) -> None:
        self._most = most
        self._run_dir = run_dir
        self._tell = tell
        self.earlier = Totals()
        self.stopped = False
        self.why = ""

    async def watch(self, totals: Callable[[], Totals], drain: Callable[[], None]) -> None:
        """Drain the session as soon as too many of its own rows have failed.

        Args:
            totals: adds up the committed rows of all sessions.
            drain: admits nothing more, and finishes the tasks in flight.
        """
        while True:
            if self._exceeded(totals()):
                break
            await asyncio.sleep(LOOK_SECONDS)
        self.stopped = True
        failed, finished, _ = self._own(totals())
        reason = await asyncio.to_thread(most_common, self._run_dir)
        self.why = f"stopped: {failed} of {finished} finished rows failed ({self._limit()}). {reason}"
        self._tell(Notice("error", f"{self.why}. Tasks in flight are finished. {self._advice()}"))
        drain()

    def judge(self, outcomes: Mapping[str, int]) -> str:
        """Return why a session with no task left has failed, and tell it; empty if it has not. Blocks.

        Args:
            outcomes: of the rows of all sessions.
        """
        failed = outcomes.get(FAILED, 0)
        if not failed:
            return ""
        if failed == sum(outcomes.values()):
            self.why = "the only row failed" if failed == 1 else f"all {failed} rows failed"
        elif self._over(failed - self.earlier.outcomes.get(FAILED, 0), self._finished(outcomes)):
            self.why = f"{failed} rows failed ({self._limit()})"
        if self.why:
            self.why += f". {most_common(self._run_dir)}"
            self._tell(Notice("error", f"{self.why}. {self._advice()}"))
        return self.why

    def report(self) -> dict[str, str]:
        """Return the entry of the summary that tells why the session failed, if it did."""
        return {"error": self.why} if self.why else {}

    def _exceeded(self, totals: Totals) -> bool:
        failed, finished, bad = self._own(totals)
        if self._most is None:
            return finished == failed and failed - bad >= FIRST_ROWS
        return (isinstance(self._most, int) or finished >= FIRST_ROWS) and self._over(failed, finished)

    def _over(self, failed: int, finished: int) -> bool:
        if self._most is None:
            return False
        return failed > (self._most if isinstance(self._most, int) else self._most * finished)

    def _own(self, totals: Totals) -> tuple[int, int, int]:
        """Count the failed, the finished and the malformed rows of this session."""
        failed = totals.outcomes.get(FAILED, 0) - self.earlier.outcomes.get(FAILED, 0)
        bad = totals.reasons.get(RowError.reason, 0) - self.earlier.reasons.get(RowError.reason, 0)
        return failed, self._finished(totals.outcomes), max(0, bad)

    def _finished(self, outcomes: Mapping[str, int]) -> int:
        return sum(outcomes.values()) - self.earlier.admitted

    def _limit(self) -> str:
        if self._most is None:
            return "none of the first was good; max_failed changes this limit"
        return f"max_failed={self._most}"

    def _advice(self) -> str:
        return (
            f"Each row's detail is in {self._run_dir / REJECTED}. When the cause is mended, peerloom resume "
            f"{quote(str(self._run_dir))} --retry-failed (in Python retry_failed=True) does them again"
        )


def most_common(run_dir: Path) -> str:
    """Name the most common reason of the failed rows, with its number and an example. Blocks."""
    extents = reversed(list_extents(run_dir, REJECTED))
    lines = islice((row for extent in extents for row in parse_lines(extent)), MOST_READ)
    found = [(row["reason"], row.get("detail", "")) for row in lines if row["outcome"] == FAILED]
    if not found:
        return "Their rows are not readable yet"
    reason, number = Counter(reason for reason, _ in found).most_common(1)[0]
    details = Counter(detail for each, detail in found if each == reason)
    detail = str(details.most_common(1)[0][0])
    shown = detail if len(detail) <= DETAIL_CHARACTERS else f"{detail[:DETAIL_CHARACTERS]}..."
    return f"Most common reason: {reason} ({number} of {len(found)} failed rows), e.g. {shown}"
