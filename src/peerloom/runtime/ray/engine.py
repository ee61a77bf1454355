"""Members as Ray actors, on the cluster of `RAY_ADDRESS` or on a local one that ends with the run.

Actors are never restarted and calls never retried by Ray: a replacement is a new incarnation, and only
the census decides what is sent again.
"""

import asyncio
import logging
import os
import signal
from contextlib import suppress
from typing import Any, cast

import ray
from ray.exceptions import RayError

from peerloom.errors import EngineError
from peerloom.protocol.view import PEER, Member
from peerloom.runtime.brief import Brief
from peerloom.runtime.link import Unreachable
from peerloom.runtime.ray.actor import Actor, Handle
from peerloom.runtime.settings import RunSettings

START_SECONDS = 60.0
OBJECT_STORE_BYTES = 512 << 20  # messages only; nothing of a run stays in the object store


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
        if not ray.is_initialized():
            address = self._settings.address or os.environ.get("RAY_ADDRESS") or "local"
            await asyncio.get_running_loop().run_in_executor(None, _connect, address)
            self._owns_cluster = True

    async def spawn(self, brief: Brief) -> None:
        """Start a member as an actor."""
        member = brief.member
        resources = self._resources(member)
        actor = Actor.options(**resources).remote(brief)
        handle = cast("Handle", actor)
        running = asyncio.ensure_future(_result(handle.run.remote()))
        self._handles[member.name] = handle
        self._running[member.name] = running
        ready = asyncio.ensure_future(_result(handle.ready.remote()))
        try:
            async with asyncio.timeout(START_SECONDS):
                await asyncio.wait((running, ready), return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                await self.wait(member.name)
            self._places[member.name] = await ready
        except (TimeoutError, RayError) as error:
            self.kill(member.name)
            raise Unreachable(f"{member.name} did not start: {error or 'timed out'}") from error
        finally:
            ready.cancel()

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
            raise Unreachable(f"{name} has died: {_first_line(error)}") from error
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
        handle = self._handles.pop(name, None)
        if handle is None:
            return
        ray.kill(handle, no_restart=True)
        node, pid = self._places.pop(name, ("", 0))
        if pid and node == ray.get_runtime_context().get_node_id():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def close(self) -> None:
        """Kill the members, and shut the cluster down if this run has started it."""
        for name in list(self._handles):
            self.kill(name)
        for running in self._running.values():
            running.cancel()
        if self._owns_cluster:
            await asyncio.get_running_loop().run_in_executor(None, ray.shutdown)

    async def _call(self, name: str, method: str, *args: Any) -> Any:
        handle = self._handles.get(name)
        if handle is None:
            raise Unreachable(f"{name} is gone")
        try:
            return await getattr(handle, method).remote(*args)
        except RayError as error:
            raise Unreachable(f"{name}: {_first_line(error)}") from error

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


def _connect(address: str) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    own = (
        {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES} if address == "local" else {}
    )
    try:
        ray.init(
            address=address,
            namespace="peerloom",
            log_to_driver=False,
            logging_level=logging.ERROR,
            **own,
        )
    except (RayError, ConnectionError, OSError, ValueError, RuntimeError) as error:
        raise EngineError(
            f"cannot use Ray at {address!r}: {_first_line(error)}. "
            "Check RAY_ADDRESS, or unset it for a local cluster, or choose engine=local"
        ) from error


async def _result(reference: Any) -> Any:
    return await reference


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
