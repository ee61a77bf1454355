"""Members as Ray actors, on the cluster of `RAY_ADDRESS` or on a local one that ends with the run.

Actors are never restarted and calls never retried by Ray: a replacement is a new incarnation, and only
the census decides what is sent again.
"""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from typing import Any

from peerloom.errors import EngineError
from peerloom.protocol.view import PEER, Member
from peerloom.runtime.brief import Brief
from peerloom.runtime.link import Unreachable
from peerloom.runtime.ray.actor import Actor
from peerloom.runtime.ray.api import Handle, RayError, RayTaskError, ray
from peerloom.runtime.ray.cluster import connect, reason, stop
from peerloom.runtime.settings import RunSettings

START_SECONDS = 60.0


class RayEngine:
    """Members by name, each an actor."""

    def __init__(self, settings: RunSettings) -> None:
        self._settings = settings
        self._handles: dict[str, Handle] = {}
        self._running: dict[str, asyncio.Future[bytes]] = {}
        self._places: dict[str, tuple[str, int]] = {}
        self._owns_cluster = False

    async def start(self) -> None:
        """Connect to the cluster, or start one."""
        loop = asyncio.get_running_loop()
        self._owns_cluster = await loop.run_in_executor(None, connect, self._settings.address)

    async def spawn(self, brief: Brief) -> tuple[str, int]:
        """Start a member as an actor."""
        name = brief.member.name
        handle: Handle = Actor.options(**self._resources(brief.member)).remote(sys.path)
        running = asyncio.ensure_future(_result(handle.run.remote(brief)))
        ready = asyncio.ensure_future(_result(handle.ready.remote()))
        self._handles[name] = handle
        self._running[name] = running
        try:
            async with asyncio.timeout(START_SECONDS):
                await asyncio.wait((running, ready), return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
            place = self._places[name] = await ready
        except RayTaskError as error:
            raise EngineError(f"{name} cannot start: {reason(error)}") from error
        except (TimeoutError, RayError) as error:
            self.kill(name)
            raise Unreachable(f"{name} did not start: {reason(error)}") from error
        finally:
            ready.cancel()
        return place

    async def introduce(self) -> None:
        """Give every member the handles of all."""
        for name, handle in list(self._handles.items()):
            if name in self._places:
                with suppress(RayError):
                    await handle.introduce.remote(self._handles)

    async def wait(self, name: str) -> bytes:
        """Wait for the end of the actor's `run`; Ray reports a killed process at once."""
        running = self._running[name]
        await asyncio.wait((running,))
        error = running.exception()
        if error is not None:
            raise Unreachable(f"{name} has died: {reason(error)}") from error
        return running.result()

    async def tell(self, name: str, data: bytes) -> None:
        """A message from the coordinator."""
        await self._call(name, "receive", data)

    async def listen(self, name: str) -> list[bytes]:
        """What the member has to tell."""
        return await self._call(name, "listen")

    async def ping(self, name: str) -> None:
        """A sign of life, from the actor's control thread."""
        await self._call(name, "ping")

    async def stats(self, name: str) -> bytes:
        """The member's figures."""
        return await self._call(name, "stats")

    async def stop(self, name: str) -> None:
        """Ask the member to stop."""
        await self._call(name, "stop")

    def kill(self, name: str) -> None:
        """Kill the actor's process; by signal too if it is on this node, since a stopped one cannot obey."""
        self._release(name)
        node, pid = self._places.pop(name, ("", 0))
        if pid and node == ray.get_runtime_context().get_node_id():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def close(self) -> None:
        """Kill the members, and shut the cluster down if this run has started it."""
        for name in list(self._handles):
            self._release(name)
        for running in self._running.values():
            running.cancel()
        if self._owns_cluster:
            await asyncio.get_running_loop().run_in_executor(None, stop)

    def _release(self, name: str) -> None:
        handle = self._handles.pop(name, None)
        if handle is not None:
            ray.kill(handle, no_restart=True)

    async def _call(self, name: str, method: str, *args: Any) -> Any:
        handle = self._handles.get(name)
        if handle is None:
            raise Unreachable(f"{name} is gone")
        try:
            return await getattr(handle, method).remote(*args)
        except RayError as error:
            raise Unreachable(f"{name}: {reason(error)}") from error

    def _resources(self, member: Member) -> dict[str, Any]:
        """Ray's options for a member's actor: what its role was given, in placement `spread`."""
        if member.kind != PEER or self._settings.placement != "spread":
            return {}
        asked = (
            dict(self._settings.roles[member.roles[0]].resources)
            if member.roles[0] in self._settings.roles
            else {}
        )
        there = ray.cluster_resources()
        for resource, amount in asked.items():
            known = {"num_cpus": "CPU", "num_gpus": "GPU"}.get(resource, resource)
            if amount > there.get(known, 0.0):
                raise EngineError(
                    f"roles.{member.roles[0]}.resources.{resource}={amount:g}: "
                    f"the cluster has {there.get(known, 0.0):g} in all"
                )
        options = {key: asked.pop(key) for key in ("num_cpus", "num_gpus") if key in asked}
        return {**options, "resources": asked} if asked else options


async def _result(reference: Any) -> Any:
    return await reference
