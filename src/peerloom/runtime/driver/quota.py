"""Coordinate the quotas of a run: receive usage reports, grant quotas, and record usage in the ledger.

A grant is sent only after the ledger has recorded it.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from peerloom.events import Notice
from peerloom.protocol.messages import QuotaGrants
from peerloom.services.llm.limits.quota_manager import QuotaManager, Sent
from peerloom.services.llm.limits.service_quota import Limits, Refusing
from peerloom.services.llm.usage.amounts import ENDLESS, NOTHING, Amount
from peerloom.services.llm.usage.budget import Budget, Spending
from peerloom.sink.errors import DiskFull
from peerloom.sink.rundir.ledger import Ledger, read_ledger

TICK_SECONDS = 0.05  # while calls wait for time to pass
COALESCE_SECONDS = 0.005  # usage reports within it are answered together
SHORT_WAIT_SECONDS = 1.0  # shorter waits for a limit are not shown
DISK_FULL_SECONDS = 1.0


class QuotaCoordinator:
    """Coordinates the quotas of one session.

    Args:
        limits: the limits of each service.
        budget: the budget of the run.
        run_dir: the run directory, which has the ledger.
        send: sends grants to a member.
        notify: passes a notice to the user.
        on_refusing: called with the services that refuse all calls, after each change.
        clock: returns a monotonic time in seconds.

    Raises:
        SinkError: if the ledger cannot be written.
    """

    def __init__(
        self,
        limits: Mapping[str, Limits],
        budget: Budget,
        run_dir: Path,
        *,
        send: Callable[[str, QuotaGrants], None],
        notify: Callable[[Notice], None],
        on_refusing: Callable[[list[Refusing]], None] = lambda refusing: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        earlier = _earlier(run_dir)
        self._manager = QuotaManager(limits, Spending(budget, earlier), clock())
        has_ledger = self.spending.bounded or earlier != NOTHING
        self._ledger = Ledger(run_dir, _named(earlier)) if has_ledger else None
        self._members: set[str] = set()
        self._send = send
        self._notify = notify
        self._on_refusing = on_refusing
        self._clock = clock
        self._changed = asyncio.Event()
        self.exhausted = asyncio.Event()

    @property
    def spending(self) -> Spending:
        """The budget and its used part."""
        return self._manager.spending

    @property
    def outstanding(self) -> int:
        """The number of calls under way, as far as reported."""
        return self._manager.outstanding

    @property
    def waiting(self) -> Refusing | None:
        """The service that refuses all calls, if it has done so for more than a moment."""
        now = self._clock()
        found = self._manager.refusing()
        found = [each for each in found if max(each.until, now) - each.since >= SHORT_WAIT_SECONDS]
        return min(found, key=lambda each: each.until, default=None)

    def unix(self, seconds: float) -> float:
        """Convert a time of the clock to Unix time."""
        return time.time() + seconds - self._clock()

    def add_reports(self, member: str, data: bytes) -> None:
        """Add the encoded usage reports of a member."""
        self._manager.take(member, data, self._clock())
        self._changed.set()

    def joined(self, member: str) -> None:
        """Note that a member that makes calls has joined."""
        self._members.add(member)
        self._manager.joined(member, self._clock())
        self._changed.set()

    def lost(self, member: str) -> None:
        """Note that a member has ended."""
        self._members.discard(member)
        self._manager.lost(member)
        self._changed.set()

    async def run(self) -> None:
        """Answer usage reports until cancelled.

        Raises:
            SinkError: if the ledger cannot be written.
        """
        while True:
            await self._wait_for_change()
            await self._send_grants(self._manager.grants(self._clock()))
            if self._manager.exhausted:
                self.exhausted.set()
            self._on_refusing(self._manager.refusing())

    def report(self) -> dict[str, dict[str, float]]:
        """Return the total and used amount of each bounded resource, for the summary."""
        total, used = self.spending.budget.amount._asdict(), self.spending.used._asdict()
        return {
            name: {"total": total[name], "used": round(used[name], 6)}
            for name in total
            if total[name] < ENDLESS
        }

    def close(self) -> None:
        """Write the final usage to the ledger; unspent grants count as used."""
        for member in self._members:
            self._manager.lost(member)
        if self._ledger is not None:
            self._ledger.note(_named(self.spending.used), {})
            self._ledger.close()

    async def _wait_for_change(self) -> None:
        seconds = None
        if self._manager.unmet:
            due = self._manager.due(self._clock()) or TICK_SECONDS
            seconds = min(TICK_SECONDS, max(COALESCE_SECONDS, due))
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
            await asyncio.sleep(COALESCE_SECONDS)
        self._changed.clear()

    async def _send_grants(self, grants: Sequence[Sent]) -> None:
        if not grants:
            return
        full = False
        while self._ledger is not None:
            try:
                await asyncio.to_thread(
                    self._ledger.note, _named(self.spending.used), _named(self.spending.held)
                )
                break
            except DiskFull as error:
                if not full:
                    self._notify(Notice("warning", f"{error} No call is made until then"))
                full = True
                await asyncio.sleep(DISK_FULL_SECONDS)
        for member, data in grants:
            self._send(member, QuotaGrants(data))


def _earlier(run_dir: Path) -> Amount:
    """Return the usage of earlier sessions, including unspent grants."""
    entry = read_ledger(run_dir)
    if entry is None:
        return NOTHING
    return Amount(**entry.used).plus(Amount(**entry.held))


def _named(amount: Amount) -> dict[str, float]:
    return {name: round(value, 9) for name, value in amount._asdict().items()}
