"""Coordinate the quotas of a run: receive usage reports, grant quotas, and record usage in the ledger.

A grant is sent only after the ledger has recorded it. Outages of services are reported here, too.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from shlex import quote

from peerloom.errors import ServiceError
from peerloom.events import Notice
from peerloom.services.llm.limits.quota_manager import Away, QuotaManager, Sent
from peerloom.services.llm.limits.service_quota import Limits, Refusing
from peerloom.services.llm.usage.amounts import ENDLESS, NOTHING, Amount
from peerloom.services.llm.usage.budget import Budget, Spending
from peerloom.sink.errors import DiskFull
from peerloom.sink.rundir.ledger import Ledger, read_ledger

TICK_SECONDS = 0.05  # while calls wait for time to pass
COALESCE_SECONDS = 0.005  # usage reports within it are answered together
OUTAGE_SECONDS = 3.0  # shorter outages are not reported
SHORT_WAIT_SECONDS = 1.0  # shorter waits for a limit are not shown
DISK_FULL_SECONDS = 1.0


class QuotaCoordinator:
    """Coordinates the quotas of one session.

    Args:
        limits: the limits of each service.
        budget: the budget of the run.
        run_dir: the run directory, which has the ledger.
        members: returns the names of the present members.
        send: sends encoded grants to a member.
        notify: passes a notice to the user.
        clock: returns a monotonic time in seconds.
        optional: the services whose outage is bridged by a fallback.

    Raises:
        SinkError: if the ledger cannot be written.
    """

    def __init__(
        self,
        limits: Mapping[str, Limits],
        budget: Budget,
        run_dir: Path,
        *,
        members: Callable[[], Sequence[str]],
        send: Callable[[str, bytes], None],
        notify: Callable[[Notice], None],
        clock: Callable[[], float] = time.monotonic,
        optional: Collection[str] = (),
    ) -> None:
        earlier = _earlier(run_dir)
        self._manager = QuotaManager(limits, Spending(budget, earlier), clock())
        has_ledger = self.spending.bounded or earlier != NOTHING
        self._ledger = Ledger(run_dir, _named(earlier)) if has_ledger else None
        self._run_dir = run_dir
        self._members = members
        self._send = send
        self._notify = notify
        self._clock = clock
        self._optional = frozenset(optional)
        self._changed = asyncio.Event()
        self._away: dict[str, float] = {}
        self._announced: dict[str, str] = {}
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
    def away(self) -> str:
        """Why a service without a fallback is unavailable; empty if all are available."""
        return "; ".join(why for service, why in self._announced.items() if service not in self._optional)

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

    def lost(self, member: str) -> None:
        """Note that a member has ended."""
        self._manager.lost(member)
        self._changed.set()

    def joined(self, member: str) -> None:
        """Note that a member has joined."""
        self._manager.joined(member)
        self._changed.set()

    def set_replicas(self, service: str, urls: Sequence[str]) -> None:
        """Set the addresses of a service's replicas."""
        self._manager.moved(service, urls, self._members())
        self._changed.set()

    async def run(self) -> None:
        """Answer usage reports until cancelled.

        Raises:
            ServiceError: if a service has refused all calls since the start.
            SinkError: if the ledger cannot be written.
        """
        while True:
            await self._wait_for_change()
            now = self._clock()
            await self._send_grants(self._manager.grants(now))
            if self._manager.exhausted:
                self.exhausted.set()
            refusing = self._manager.refusing()
            away = [Away(each.service, f"it refuses calls: {each.why}", False) for each in refusing]
            self._report_outages([*self._manager.away(), *away], now)

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
        for member in list(self._members()):
            self._manager.lost(member)
        if self._ledger is not None:
            self._ledger.note(_named(self.spending.used), {})
            self._ledger.close()

    async def _wait_for_change(self) -> None:
        seconds = OUTAGE_SECONDS if self._away else None
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
            self._send(member, data)

    def _report_outages(self, away: Sequence[Away], now: float) -> None:
        """Notify the user of outages that last, and of their end."""
        for service in [service for service in self._away if service not in {each.service for each in away}]:
            del self._away[service]
            if self._announced.pop(service, ""):
                self._notify(Notice("info", f"{service} answers again"))
        for service, why, denied in away:
            since = self._away.setdefault(service, now)
            optional = service in self._optional
            if denied and not optional and not self._manager.ever_answered(service):
                raise ServiceError(
                    f"{service}: {why}. Nothing was answered yet; mend it, then: "
                    f"peerloom resume {quote(str(self._run_dir))}"
                )
            if now - since >= OUTAGE_SECONDS and service not in self._announced:
                self._announced[service] = f"{service} does not answer ({why})"
                meanwhile = "another service steps in" if optional else "its tasks wait for it and none fails"
                text = f"{service} does not answer, {meanwhile}: {why}"
                self._notify(Notice("warning", text))


def _earlier(run_dir: Path) -> Amount:
    """Return the usage of earlier sessions, including unspent grants."""
    entry = read_ledger(run_dir)
    if entry is None:
        return NOTHING
    return Amount(**entry.used).plus(Amount(**entry.held))


def _named(amount: Amount) -> dict[str, float]:
    return {name: round(value, 9) for name, value in amount._asdict().items()}
