"""The engine in one process: members are tasks of one event loop, a message is a function call.

For debugging, notebooks and tests. The members are the same code as on Ray, messages are encoded all
the same, and a killed member is a cancelled task.
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
    """Members in this process; also every member's `Link`."""

    def __init__(self) -> None:
        self._hosts: dict[str, Host] = {}
        self._running: dict[str, asyncio.Task[MemberStats]] = {}
        self._open = contextlib.ExitStack()

    @property
    def step(self) -> str:
        """Starting takes no time here."""
        return ""

    async def start(self) -> None:
        """Nothing to make ready."""
        self._open.enter_context(infrequent_gc())

    def spawner(self) -> LocalSpawner:
        """All is on this machine."""
        return LocalSpawner()

    def address(self) -> str:
        """All is in this process."""
        return "127.0.0.1"

    async def spawn(self, spec: MemberSpec, on_wait: Callable[[str], None]) -> tuple[str, int]:
        """Start a member as a task; for that there is always room."""
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
        """The members there are."""
        return list(self._hosts)

    async def introduce(self, name: str) -> None:
        """Members find each other here anyway."""

    async def wait(self, name: str) -> bytes:
        """Wait for the member's task."""
        running = self._running[name]
        await asyncio.wait((running,))
        error = None if running.cancelled() else running.exception()
        if running.cancelled() or error is not None:
            self._hosts.pop(name, None)
            raise death_error(name, error, starting=False)
        return _encoded(running.result())

    async def send(self, to: str, data: bytes) -> bytes:
        """A message from one member to another."""
        await asyncio.sleep(0)  # no member may act inside another one's turn of the loop
        return await self._host(to).receive(data)

    def host_of(self, member: str) -> str:
        """There is one host only."""
        return ""

    async def notify(self, name: str, data: bytes) -> None:
        """A message from the coordinator."""
        await self._host(name).receive(data)

    async def poll_events(self, name: str) -> list[bytes]:
        """What the member has to tell."""
        return await self._host(name).poll_events()

    async def ping(self, name: str) -> None:
        """Whoever is here is alive."""
        self._host(name)

    async def stats(self, name: str) -> bytes:
        """The member's figures."""
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
        """Cancel what is left."""
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
    stats.cpu_seconds = 0.0  # it is this process's, which the run counts itself
    return encode_stats(stats)
