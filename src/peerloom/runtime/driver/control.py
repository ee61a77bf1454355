"""Control an active run: pause, continue, drain, stop, and adjust it, and tell its state."""

import asyncio
import time
from dataclasses import replace
from typing import Literal

from peerloom.events import Notice
from peerloom.runtime.driver.health import ServiceHealth
from peerloom.runtime.driver.hooks import HookDispatcher
from peerloom.runtime.driver.quota import QuotaCoordinator
from peerloom.runtime.driver.session import Session
from peerloom.runtime.driver.supervisor import Supervisor
from peerloom.runtime.settings import RunSettings, adjusted
from peerloom.services.llm.limits.service_quota import Refusing

RunState = Literal["running", "paused", "draining", "stopping"]


class RunControl:
    """The control of one run, for its user and for the guards of the run itself."""

    def __init__(
        self, settings: RunSettings, session: Session, supervisor: Supervisor, hooks: HookDispatcher
    ) -> None:
        self.settings = settings  # the present ones
        self.session = session
        self._supervisor = supervisor
        self._hooks = hooks
        self.paused = ""  # why, if it is
        self.suspended = False  # paused, to be continued by another session
        self.drained = asyncio.Event()  # admission has been stopped
        self.ended = asyncio.Event()  # the run is to stop
        self.address = ""  # of this process for other hosts, once the run has started
        self.health = ServiceHealth(
            session.run_dir.path, members=lambda: supervisor.names, send=supervisor.send, notify=self.notify
        )
        self.quota: QuotaCoordinator | None = None  # once the services have started

    @property
    def state(self) -> RunState:
        """The state of the run."""
        if self.ended.is_set():
            return "stopping"
        if self.paused:
            return "paused"
        return "draining" if self.drained.is_set() else "running"

    @property
    def stalled(self) -> str:
        """Why no rows can be expected: the run is paused, or waits for a service; empty if they can."""
        return self.paused or self.health.down

    @property
    def waiting(self) -> Refusing | None:
        """The service that refuses all calls, if there is one; its times are Unix times."""
        quota = self.quota
        found = quota.waiting if quota is not None else None
        if quota is None or found is None:
            return None
        until = max(quota.unix(found.until), time.time())
        return replace(found, since=quota.unix(found.since), until=until)

    def pause(self, why: str) -> bool:
        """Stop admission and new turns; running turns finish. Return False if it was paused already."""
        if self.paused or self.ended.is_set():
            return False
        self._set_paused(why)
        resume = f"`peerloom ctl continue {self.session.run_dir.path}` goes on"
        self.notify(Notice("warning", f"paused: {why}. Turns under way finish; {resume}"))
        return True

    def unpause(self) -> bool:
        """Continue a paused run. Return False if it was not paused, or its budget is used up."""
        if not self.paused or self.suspended or self.ended.is_set():
            return False
        self._set_paused("")
        self._hooks.notice("continuing")
        return True

    def suspend(self, why: str) -> None:
        """Stop admission and new turns for the rest of the session."""
        self.suspended = True
        self._set_paused(why)
        self.notify(Notice("warning", f"{why}. Calls under way are finished"))

    def adjust(self, key: str, value: str) -> bool:
        """Change a setting (see `runtime.settings.adjusted`). Return False if it has that value already.

        Raises:
            ConfigError: if the setting cannot be changed, or the value is invalid.
        """
        before, self.settings = self.settings, adjusted(self.settings, key, value)
        if before == self.settings:
            return False
        self._set_paused(self.paused)
        self._hooks.notice(f"{key} is now {getattr(self.settings, key)}, it was {getattr(before, key)}")
        return True

    def drain(self) -> None:
        """Stop admission, and finish the tasks in flight; a paused run continues for that."""
        self.drained.set()
        self._supervisor.drain()
        self.unpause()

    def abort(self) -> None:
        """Stop at once; tasks in flight get no row."""
        self.drained.set()
        self.ended.set()

    async def wait_delivered(self) -> None:
        """Wait until all members have received the latest changes."""
        await self._supervisor.wait_delivered()

    def notify(self, notice: Notice) -> None:
        """Pass a notice to the hooks."""
        self._hooks.emit(notice)

    def _set_paused(self, why: str) -> None:
        self.paused = why
        self._supervisor.set_pace(self.settings, paused=bool(why))


def describe_wait(waiting: Refusing) -> str:
    """Describe the wait for a service, without its end."""
    return f"for {waiting.service}, which refuses calls ({waiting.why})"
