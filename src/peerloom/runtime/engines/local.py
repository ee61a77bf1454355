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
from peerloom.runtime.member.host import Host
from peerloom.runtime.member.spec import MemberSpec, MemberStats, encode_stats
from peerloom.runtime.transport.base import Unreachable
from peerloom.services.processes.spawn import LocalSpawner


class LocalEngine:
    """Runs members in this process; also the `Link` of all members."""

    def __init__(self) -> None:
        self._hosts: dict[str, Host] = {}
        self._running: dict[str, asyncio.Task[MemberStats]] = {}
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
        host = build(spec, self)
        self._hosts[name] = host
        running = self._running[name] = asyncio.create_task(host.run(), name=name)
        ready = asyncio.create_task(host.ready())
        await asyncio.wait((running, ready), return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            ready.cancel()
            raise death_error(name, None if running.cancelled() else running.exception(), starting=True)
        return "", os.getpid()

    def names(self) -> list[str]:
        """Return the names of the present members."""
        return list(self._hosts)

    async def introduce(self, name: str) -> None:
        """Do nothing: members reach each other through this object."""

    async def wait(self, name: str) -> bytes:
        """Wait for the task of a member, and return its final statistics."""
        running = self._running[name]
        await asyncio.wait((running,))
        error = None if running.cancelled() else running.exception()
        if running.cancelled() or error is not None:
            self._hosts.pop(name, None)
            raise death_error(name, error, starting=False)
        return _encoded(running.result())

    async def send(self, to: str, data: bytes) -> bytes:
        """Send a message to a member, and return the answer."""
        await asyncio.sleep(0)  # a member must not run inside a callback of another
        return self._host(to).handle(data)

    def host_of(self, member: str) -> str:
        """Return an empty string, since there is only one host."""
        return ""

    async def notify(self, name: str, data: bytes) -> None:
        """Send a message from the driver to a member."""
        self._host(name).handle(data)

    async def poll_events(self, name: str) -> list[bytes]:
        """Wait for the messages of a member to the driver, and return them."""
        return await self._host(name).poll_events()

    async def ping(self, name: str) -> None:
        """Check that the member is present, and thus alive."""
        self._host(name)

    async def stats(self, name: str) -> bytes:
        """Return the statistics of a member."""
        return _encoded(self._host(name).stats())

    async def stop(self, name: str) -> None:
        """Ask the member to stop."""
        self._host(name).stop()

    def kill(self, name: str) -> None:
        """Cancel the member's task."""
        self._hosts.pop(name, None)
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

    def _host(self, name: str) -> Host:
        host = self._hosts.get(name)
        if host is None or self._running[name].done():
            raise Unreachable(f"{name} is gone")
        return host


def _encoded(stats: MemberStats) -> bytes:
    stats.cpu_seconds = 0.0  # the driver counts those of its own process
    return encode_stats(stats)
