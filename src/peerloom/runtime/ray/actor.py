"""The Ray actor around one member.

Messages arrive on the actor's main event loop, where the member lives, and are only taken in there, so
calls never queue up behind work. `ping` has a concurrency group of its own, which in Ray is a thread of
its own: it answers however busy the main loop is, and touches nothing of the member. So does `place`.
"""

import asyncio
import gc
import os
import sys

from peerloom.runtime.brief import Brief, encode_stats
from peerloom.runtime.engine import build
from peerloom.runtime.host import Host
from peerloom.runtime.link import Unreachable
from peerloom.runtime.ray.api import Handle, RayError, ray


class RayLink:
    """Reaches other members by their actor handles."""

    def __init__(self) -> None:
        self.handles: dict[str, Handle] = {}

    async def send(self, to: str, data: bytes) -> bytes:
        """One actor call."""
        handle = self.handles.get(to)
        if handle is None:
            raise Unreachable(f"no handle for {to}")
        try:
            return await handle.receive.remote(data)
        except RayError as error:
            raise Unreachable(f"{to}: {error}") from error


class MemberActor:
    """One member in a process of its own. `run` comes first: it brings the member to life.

    Args:
        path: the driver's `sys.path`. Set before the brief arrives, whose agents may come from modules
            that only the driver's path leads to.
    """

    def __init__(self, path: list[str]) -> None:
        sys.path += [entry for entry in path if entry not in sys.path]
        self._link = RayLink()
        self._host: Host | None = None
        self._begun = asyncio.Event()

    async def run(self, brief: Brief) -> bytes:
        """Live; the last figures. Fails with whatever ends the member."""
        # Thousands of live tasks make full collections cost more than the work itself.
        gc.freeze()
        gc.set_threshold(200_000, 50, 1_000)
        self._host = build(brief, self._link)
        self._begun.set()
        return encode_stats(await self._host.run())

    async def ready(self) -> None:
        """Wait until messages are taken in."""
        await self._begun.wait()
        await self._alive.ready()

    async def introduce(self, handles: dict[str, Handle]) -> None:
        """How to reach the others."""
        self._link.handles = handles

    async def receive(self, data: bytes) -> bytes:
        """Take a message in."""
        return await self._alive.receive(data)

    async def listen(self) -> list[bytes]:
        """What there is to tell the coordinator."""
        return await self._alive.listen()

    async def stats(self) -> bytes:
        """The member's figures."""
        return encode_stats(self._alive.stats())

    async def stop(self) -> None:
        """Stop living."""
        self._alive.stop()

    @property
    def _alive(self) -> Host:
        assert self._host is not None, "no member is spoken to before it is ready"
        return self._host

    @ray.method(concurrency_group="control")
    async def place(self) -> tuple[str, int]:
        """The node and process id; whoever can tell is there."""
        return ray.get_runtime_context().get_node_id(), os.getpid()

    @ray.method(concurrency_group="control")
    async def ping(self) -> None:
        """Sign of life."""


Actor = ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0, concurrency_groups={"control": 2})(
    MemberActor
)
