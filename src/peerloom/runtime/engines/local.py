"""Run members in one process, as tasks of one event loop, for debugging, notebooks, and tests.

The members run the same code as on Ray, and messages are encoded. A message is a function call, and killing
a member cancels its task.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable

from peerloom.runtime.engine import build, death_error
from peerloom.runtime.member.garbage import infrequent_gc
from peerloom.runtime.member.runtime import MemberRuntime
from peerloom.runtime.member.spec import MemberSpec
from peerloom.runtime.transport.base import Unreachable
from peerloom.services.processes.spawn import LocalSpawner


class LocalEngine:
    """Runs members in this process; also the `Link` of all members."""

    def __init__(self) -> None:
        self._members: dict[str, MemberRuntime] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._open = contextlib.ExitStack()

    @property
    def step(self) -> str:
        """Empty, since the start takes no time."""
        return ""

    async def start(self) -> None:
        """Prepare this process for members."""
        self._open.enter_context(infrequent_gc())

    def spawner(self) -> LocalSpawner:
        """Return the spawner of this machine."""
        return LocalSpawner()

    def address(self) -> str:
        """Return the loopback address."""
        return "127.0.0.1"

    async def spawn(self, spec: MemberSpec, on_wait: Callable[[str], None]) -> tuple[str, int]:
        """Start a member as a task, without ever waiting for resources."""
        name = spec.member.name
        member = build(spec, self)
        running = self._running[name] = asyncio.create_task(member.run(), name=name)
        ready = asyncio.create_task(member.ready())
        await asyncio.wait((running, ready), return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            ready.cancel()
            raise death_error(name, None if running.cancelled() else running.exception(), starting=True)
        self._members[name] = member
        return "", os.getpid()

    def names(self) -> list[str]:
        """Return the names of the present members."""
        return list(self._members)

    async def introduce(self, name: str) -> None:
        """Do nothing: members reach each other through this object."""

    async def send(self, to: str, data: bytes) -> bytes:
        """Send a message to a member, and return the answer."""
        await asyncio.sleep(0)  # a member must not run inside a callback of another
        return self._member(to).handle(data)

    def host_of(self, member: str) -> str:
        """Return an empty string, since there is only one host."""
        return ""

    async def notify(self, name: str, data: bytes) -> None:
        """Send a message from the driver to a member."""
        self._member(name).handle(data)

    async def poll_events(self, name: str, received: int) -> list[bytes]:
        """Wait for the events of a member, and return them."""
        member, running = self._members.get(name), self._running[name]
        events = await member.poll_events(received) if member is not None else []
        if events and name in self._members:
            return events
        await asyncio.wait((running,))
        error = None if running.cancelled() else running.exception()
        if running.cancelled() or error is not None:
            self._members.pop(name, None)
            raise death_error(name, error, starting=False)
        return []

    async def ping(self, name: str) -> None:
        """Check that the member is present, and thus alive."""
        self._member(name)

    async def stop(self, name: str) -> None:
        """Ask the member to stop."""
        self._member(name).stop()

    def kill(self, name: str) -> None:
        """Cancel the member's task."""
        self._members.pop(name, None)
        running = self._running.get(name)
        if running is not None:
            running.cancel()

    async def close(self) -> None:
        """Cancel all remaining members."""
        self._open.close()
        running = list(self._running.values())
        for task in running:
            task.cancel()
        for task in running:
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task

    def _member(self, name: str) -> MemberRuntime:
        member = self._members.get(name)
        if member is None or self._running[name].done():
            raise Unreachable(f"{name} is gone")
        return member
