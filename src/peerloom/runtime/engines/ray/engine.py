"""Run members as Ray actors, on the cluster of `RAY_ADDRESS` or on a local one that ends with the run.

Ray never restarts these actors or retries their calls: a replacement is a new incarnation, and only a census
decides which tasks are sent again.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, cast

from peerloom.errors import EngineError
from peerloom.protocol.view import ALONE, FEEDER, SINK, Member
from peerloom.runtime.engine import death_error
from peerloom.runtime.engines.ray.actor import Actor
from peerloom.runtime.engines.ray.api import (
    Handle,
    NodeAffinitySchedulingStrategy,
    RayError,
    RayTaskError,
    ray,
)
from peerloom.runtime.engines.ray.capacity import (
    OWN_OPTIONS,
    check_capacity,
    missing_resources,
    some_node_has,
)
from peerloom.runtime.engines.ray.cluster import (
    cluster_address,
    connect,
    node_address,
    reason,
    stop,
    take_sigterm_back,
)
from peerloom.runtime.engines.ray.pickling import find_unpicklable
from peerloom.runtime.engines.ray.probe import check_reachable
from peerloom.runtime.engines.ray.spawner import RaySpawner
from peerloom.runtime.member.spec import MemberSpec
from peerloom.runtime.settings import RoleSettings, RunSettings
from peerloom.runtime.transport.base import Unreachable
from peerloom.runtime.transport.connections import Address
from peerloom.runtime.transport.deadline import Deadline
from peerloom.runtime.transport.tls import Credentials

START_SECONDS = 60.0
ROOM_POLL_SECONDS = 2.0
NOTICE_SECONDS = 10.0  # without resources before a notice: those of a dead process take a while to be freed


class RayEngine:
    """Runs members as actors."""

    def __init__(self, settings: RunSettings) -> None:
        self._settings = settings
        self._credentials = Credentials.create()
        self._handles: dict[str, Handle] = {}
        self._addresses: dict[str, Address] = {}
        self._running: dict[str, asyncio.Future[None]] = {}
        self._places: dict[str, tuple[str, int]] = {}
        self._connecting: asyncio.Future[bool] | None = None
        self._probing = False
        self._node = ""

    @property
    def step(self) -> str:
        """A description of `start`: a connection, or a new cluster."""
        return "connecting to Ray" if cluster_address(self._settings.address) else "starting Ray"

    async def start(self) -> None:
        """Connect to the cluster, or start one, unless a service with processes on its nodes has done so."""
        if self._connecting is None:
            self._connecting = asyncio.ensure_future(self._connect())
        await asyncio.shield(self._connecting)
        self._node = ray.get_runtime_context().get_node_id()
        check_capacity(self._settings)

    async def _connect(self) -> bool:
        where = cluster_address(self._settings.address)
        if where and not ray.is_initialized():
            self._probing = True
            await check_reachable(where)
            self._probing = False
        owned = await asyncio.to_thread(connect, self._settings.address, checked=True)
        take_sigterm_back()
        return owned

    def spawner(self) -> RaySpawner:
        """Return the spawner for this process and all nodes of the cluster."""
        return RaySpawner(self.start)

    def address(self) -> str:
        """Return the address of this node; loopback if this process started the cluster."""
        return node_address()

    def names(self) -> list[str]:
        """Return the names of the present members."""
        return list(self._places)

    async def spawn(self, spec: MemberSpec, on_wait: Callable[[str], None]) -> tuple[str, int]:
        """Start a member as an actor."""
        name = spec.member.name
        options, requested = self._options(spec.member)
        try:
            handle: Handle = Actor.options(**options).remote(self._credentials, sys.path)
            running = asyncio.ensure_future(_result(handle.run.remote(spec)))
        except Exception as error:  # an object's `__reduce__` may raise any
            found = find_unpicklable(spec.program)
            raise EngineError(
                f"{name} cannot be sent to another process: {reason(error)}"
                f"{f' (in {found})' if found else ''}. An agent must not hold open files, locks or "
                "connections: make them in act(), or choose engine=local"
            ) from error
        placed = asyncio.ensure_future(_result(handle.place.remote()))
        ready = asyncio.ensure_future(_result(handle.ready.remote()))
        self._handles[name] = handle
        self._running[name] = running
        try:
            await _wait_for_room({running, placed}, requested, on_wait)
            async with Deadline(START_SECONDS):
                await asyncio.wait((running, ready), return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                await self._wait_for_end(name)
            self._addresses[name] = await ready
            place = self._places[name] = await placed
        except (TimeoutError, RayError) as error:
            self.kill(name)
            raise Unreachable(f"{name} did not start: {reason(error)}") from error
        finally:
            placed.cancel()
            ready.cancel()
        return place

    async def introduce(self, name: str) -> None:
        """Send a member the handles and addresses of all members."""
        handles = {other: self._handles[other] for other in self._places if other in self._handles}
        addresses = {other: self._addresses[other] for other in handles if other in self._addresses}
        await self._call(name, "introduce", handles, addresses)

    async def _wait_for_end(self, name: str) -> None:
        """Wait for the end of the actor's `run`, and raise its error, if any."""
        running = self._running[name]
        await asyncio.wait((running,))
        error = running.exception()
        if isinstance(error, RayTaskError) and name in self._handles:
            cause = cast("Any", error).cause
            raise death_error(name, cause, starting=name not in self._places) from error
        if error is not None:
            raise Unreachable(f"{name} has died: {reason(error)}") from error

    async def notify(self, name: str, data: bytes) -> None:
        """Send a message from the driver to a member."""
        await self._call(name, "receive", data)

    async def poll_events(self, name: str, received: int) -> list[bytes]:
        """Wait for the events of a member, and return them."""
        with suppress(Unreachable):  # the end of `run` tells why
            if events := await self._call(name, "poll_events", received):
                return events
        await self._wait_for_end(name)
        return []

    async def ping(self, name: str) -> None:
        """Wait for a heartbeat from the control thread of the actor."""
        await self._call(name, "ping")

    async def stop(self, name: str) -> None:
        """Ask the member to stop."""
        await self._call(name, "stop")

    def kill(self, name: str) -> None:
        """Kill the actor's process, on this node also by a signal, since a stopped process ignores Ray."""
        self._release(name)
        node, pid = self._places.pop(name, ("", 0))
        if pid and node == ray.get_runtime_context().get_node_id():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def close(self) -> None:
        """Kill the members, and shut the cluster down if this run started it."""
        for name in list(self._handles):
            self._release(name)
        for running in self._running.values():
            running.cancel()
        owned = False
        if self._connecting is not None:
            if self._probing:
                self._connecting.cancel()
            await asyncio.wait((self._connecting,))
            with suppress(EngineError, asyncio.CancelledError):
                owned = self._connecting.result()
        if owned:
            await asyncio.get_running_loop().run_in_executor(None, stop)

    def _release(self, name: str) -> None:
        handle = self._handles.pop(name, None)
        self._addresses.pop(name, None)
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

    def _options(self, member: Member) -> tuple[dict[str, Any], Mapping[str, float]]:
        """Return Ray's options for a member's actor, and the resources among them."""
        if member.kind in (FEEDER, SINK):  # the driver's node has the source and the run directory
            return {"scheduling_strategy": NodeAffinitySchedulingStrategy(self._node, soft=False)}, {}
        requested: dict[str, float] = {}
        for role in member.roles:
            placed = self._settings.roles.get(role, RoleSettings())
            for resource, amount in placed.resources.items():
                requested[resource] = max(amount, requested.get(resource, 0.0))
        if member.kind == ALONE and not some_node_has(requested):
            requested = {}  # all roles, whose resources are on different nodes: it would wait for ever
        options = {key: amount for key, amount in requested.items() if key in OWN_OPTIONS}
        custom = {key: amount for key, amount in requested.items() if key not in OWN_OPTIONS}
        return {"scheduling_strategy": "SPREAD", **options, "resources": custom}, requested


async def _wait_for_room(
    started: set[asyncio.Future[Any]], requested: Mapping[str, float], on_wait: Callable[[str], None]
) -> None:
    """Wait until a process is placed, or for `START_SECONDS` in which its resources were available."""
    had_room = lacked = 0.0
    while not (await asyncio.wait(started, timeout=ROOM_POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED))[
        0
    ]:
        lack = await asyncio.to_thread(missing_resources, requested) if requested else ""
        if not lack:
            had_room += ROOM_POLL_SECONDS
        else:
            lacked += ROOM_POLL_SECONDS
            if lacked >= NOTICE_SECONDS:
                on_wait(lack)
        if had_room >= START_SECONDS and not requested:
            raise TimeoutError
        if had_room >= START_SECONDS:
            on_wait("the cluster has what it asks for, but not on one node, or does not place it")


async def _result(reference: Any) -> Any:
    return await reference
