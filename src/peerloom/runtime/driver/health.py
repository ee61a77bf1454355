"""Follow the health and the endpoints of the services of a run.

An outage that lasts is reported to the user, once, and so is its end. Changed endpoints are sent to members.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from shlex import quote

from peerloom.errors import ServiceError
from peerloom.events import Notice
from peerloom.protocol.messages import EndpointUpdate, HealthReport
from peerloom.services.llm.limits.service_quota import Refusing

OUTAGE_SECONDS = 3.0  # shorter outages are not reported


class ServiceHealth:
    """The health of the services of one session.

    Args:
        run_dir: the run directory, named in errors.
        members: returns the names of the present members.
        send: sends an update to a member.
        notify: passes a notice to the user.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        members: Callable[[], Sequence[str]],
        send: Callable[[str, EndpointUpdate], None],
        notify: Callable[[Notice], None],
    ) -> None:
        self._run_dir = run_dir
        self._members = members
        self._send = send
        self._notify = notify
        self._optional: Collection[str] = ()
        self._updates: dict[str, EndpointUpdate] = {}
        self._reports: dict[tuple[str, str], HealthReport] = {}  # of services that are down, by member
        self._refusing: dict[str, str] = {}
        self._answered: set[str] = set()
        self._since: dict[str, float] = {}
        self._announced: dict[str, str] = {}
        self._changed = asyncio.Event()

    @property
    def down(self) -> str:
        """Why a service without a fallback is unavailable; empty if all are available."""
        return "; ".join(why for service, why in self._announced.items() if service not in self._optional)

    def add_report(self, member: str, report: HealthReport) -> None:
        """Add the report of a member."""
        if report.answered:
            self._answered.add(report.service)
        self._reports.pop((report.service, member), None)
        if report.down:
            self._reports[report.service, member] = report
        self._changed.set()

    def set_refusing(self, refusing: Sequence[Refusing]) -> None:
        """Set the services that refuse all calls."""
        found = {each.service: f"it refuses calls: {each.why}" for each in refusing}
        if found.keys() != self._refusing.keys():
            self._changed.set()
        self._refusing = found

    def set_endpoints(self, service: str, urls: Sequence[str]) -> None:
        """Change the endpoints of a service, and send them to all members."""
        number = self._updates[service].number + 1 if service in self._updates else 1
        self._updates[service] = EndpointUpdate(service, number, list(urls))
        for member in self._members():
            self._send(member, self._updates[service])

    def joined(self, member: str) -> None:
        """Send a new member the endpoints that have changed since the session began."""
        for update in self._updates.values():
            self._send(member, update)

    def lost(self, member: str) -> None:
        """Drop the reports of a member that has ended."""
        for key in [key for key in self._reports if key[1] == member]:
            del self._reports[key]
        self._changed.set()

    async def run(self, optional: Collection[str] = ()) -> None:
        """Report outages until cancelled.

        Args:
            optional: the services whose outage is bridged by a fallback.

        Raises:
            ServiceError: if a service denies all requests and has not answered any.
        """
        self._optional = optional
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(OUTAGE_SECONDS if self._since else None):
                    await self._changed.wait()
            self._changed.clear()
            down = dict(self._refusing)
            for report in self._reports.values():
                self._check_denial(report)
                down[report.service] = report.down
            self._report(down)

    def _check_denial(self, report: HealthReport) -> None:
        if report.denied and report.service not in (*self._optional, *self._answered):
            raise ServiceError(
                f"{report.service}: {report.down}. Nothing was answered yet; fix it, then: "
                f"peerloom resume {quote(str(self._run_dir))}"
            )

    def _report(self, down: dict[str, str]) -> None:
        """Notify the user of outages that last, and of their end."""
        for service in [service for service in self._since if service not in down]:
            del self._since[service]
            if self._announced.pop(service, ""):
                self._notify(Notice("info", f"{service} answers again"))
        for service, why in down.items():
            since = self._since.setdefault(service, time.monotonic())
            if time.monotonic() - since >= OUTAGE_SECONDS and service not in self._announced:
                self._announced[service] = f"{service} does not answer ({why})"
                optional = service in self._optional
                meanwhile = "another service steps in" if optional else "its tasks wait for it and none fails"
                self._notify(Notice("warning", f"{service} does not answer, {meanwhile}: {why}"))
