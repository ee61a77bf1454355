"""Start the processes of services on the nodes of a cluster, each from an actor there.

Such a process is a child of its actor's process and dies with it (`services.processes.spawn`), so it ends
with the driver, however that ends. Without `spread`, processes are children of the driver.
"""

import asyncio
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from peerloom.errors import ServiceError
from peerloom.runtime.engines.ray.api import (
    Handle,
    NodeAffinitySchedulingStrategy,
    RayError,
    RayTaskError,
    ray,
)
from peerloom.runtime.engines.ray.capacity import missing_resources
from peerloom.runtime.engines.ray.cluster import node_address, reason
from peerloom.services.processes.spawn import ChildProcess, LocalSpawner, PlaceLost, Spawner

START_SECONDS = 60.0


class _Launcher:
    """The actor that starts processes on its node."""

    def __init__(self, path: list[str]) -> None:
        sys.path += [entry for entry in path if entry not in sys.path]
        self._spawner = LocalSpawner()
        self._children: dict[int, ChildProcess] = {}

    async def where(self) -> tuple[str, str]:
        """Return the id of the node, and its address for other hosts."""
        return ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address()

    async def spawner(self, method: str, *args: Any) -> Any:
        """Call a method of the spawner of this node."""
        return await getattr(self._spawner, method)(*args)

    async def start(
        self, argv: Sequence[str], name: str, env: Mapping[str, str], log: str | None, isolated: bool
    ) -> tuple[int, str]:
        """Start a process, and return its id and the path of its log."""
        path = _on_this_node(Path(log)) if log is not None else None
        child = await self._spawner.start(argv, name=name, env=env, log=path, isolated=isolated)
        self._children[child.pid] = child
        return child.pid, child.log

    async def call(self, pid: int, method: str, *args: Any) -> Any:
        """Call a method of a process, by its id."""
        return await getattr(self._children[pid], method)(*args)


class RaySpawner(LocalSpawner):
    """Starts processes on this node, or with `spread` on the nodes of the cluster.

    Args:
        connect: connects this process to the cluster, unless it is connected.
        resources: the resources of each process on a node, by Ray's names (`num_gpus`, `num_cpus`).
    """

    def __init__(
        self, connect: Callable[[], Awaitable[None]], resources: Mapping[str, float] | None = None
    ) -> None:
        super().__init__()
        self._connect = connect
        self._resources = dict(resources or {})
        self._next = 0

    async def spread(self, count: int) -> "Sequence[Spawner]":
        """Return spawners on the nodes in turn, or on any nodes with the `resources`.

        Raises:
            ServiceError: if no node has the resources, or the actors do not start.
        """
        await self._connect()
        if self._resources and (lack := await asyncio.to_thread(missing_resources, self._resources)):
            raise ServiceError(f"{lack}: free some, or ask for less")
        starting = [asyncio.ensure_future(self._on_node()) for _ in range(count)]
        try:
            return await asyncio.gather(*starting)
        except BaseException:
            for each in await asyncio.gather(*starting, return_exceptions=True):
                if isinstance(each, NodeSpawner):
                    await each.close()
            raise

    async def _on_node(self) -> "NodeSpawner":
        options: dict[str, Any] = {"scheduling_strategy": "SPREAD", **self._resources}
        if not self._resources:
            nodes = sorted(node["NodeID"] for node in ray.nodes() if node["Alive"])
            node = nodes[self._next % len(nodes)]
            self._next += 1
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=False)
        handle: Handle = _Actor.options(**options).remote(sys.path)
        try:
            async with asyncio.timeout(START_SECONDS):
                node, address = await handle.where.remote()
        except (TimeoutError, RayError) as error:
            ray.kill(handle, no_restart=True)
            raise ServiceError(
                f"no process for a server could be started on a node: {reason(error)}"
            ) from error
        except BaseException:
            ray.kill(handle, no_restart=True)
            raise
        only_host = node_address() == "127.0.0.1"  # a cluster of this process has no other host
        here = node == ray.get_runtime_context().get_node_id()
        return NodeSpawner(handle, "127.0.0.1" if only_host else address, "" if here else address)


class NodeSpawner:
    """Starts processes on one node, from an actor there. `close` kills the actor and its processes."""

    def __init__(self, handle: Handle, address: str, place: str) -> None:
        self._handle = handle
        self._address = address
        self.place = place

    async def spread(self, count: int) -> "Sequence[NodeSpawner]":
        """Return this spawner `count` times."""
        return [self] * count

    async def reserve_port(self, host: str | None = None) -> tuple[str, int]:
        """See `Spawner`."""
        return await _awaited(self._handle.spawner.remote("reserve_port", host or self._address))

    async def release_port(self, port: int) -> None:
        """See `Spawner`."""
        with suppress(PlaceLost):
            await _awaited(self._handle.spawner.remote("release_port", port))

    async def start(
        self,
        argv: Sequence[str],
        *,
        name: str,
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
        isolated: bool = False,
    ) -> "NodeChild":
        """See `Spawner`."""
        reference = self._handle.start.remote(
            list(argv), name, dict(env or {}), str(log) if log else None, isolated
        )
        pid, where = await _awaited(reference)
        return NodeChild(self._handle, pid, f"{self.place}:{where}" if self.place else where)

    async def close(self) -> None:
        """Kill the actor."""
        with suppress(RayError):
            ray.kill(self._handle, no_restart=True)


class NodeChild:
    """A process on a node. It is killed with its actor."""

    def __init__(self, handle: Handle, pid: int, log: str) -> None:
        self._handle = handle
        self.pid, self.log = pid, log
        self._ended = asyncio.ensure_future(_awaited(handle.call.remote(pid, "wait")))
        self._ended.add_done_callback(lambda ended: ended.cancelled() or ended.exception())

    async def wait(self) -> int:
        """See `ChildProcess`."""
        try:
            return await asyncio.shield(self._ended)
        except PlaceLost:
            return -9

    async def stop(self, grace: float = 5) -> None:
        """See `ChildProcess`. A node that does not answer is ignored."""
        with suppress(PlaceLost, TimeoutError):
            async with asyncio.timeout(grace + START_SECONDS):
                await self._call("stop", grace)

    async def output(self) -> str:
        """See `ChildProcess`."""
        try:
            return await self._call("output")
        except PlaceLost as error:
            return f"({error})\n"

    async def cpu_seconds(self) -> float:
        """See `ChildProcess`."""
        try:
            return await self._call("cpu_seconds")
        except PlaceLost:
            return 0.0

    async def _call(self, method: str, *args: Any) -> Any:
        return await _awaited(self._handle.call.remote(self.pid, method, *args))


_Actor = ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0)(_Launcher)


async def _awaited(reference: Any) -> Any:
    try:
        return await reference
    except RayTaskError as error:
        cause: Any = getattr(error, "cause", error)
        raise (cause if isinstance(cause, ServiceError) else ServiceError(reason(error))) from error
    except RayError as error:
        raise PlaceLost(f"the process on the node is gone: {reason(error)}") from error


def _on_this_node(log: Path) -> Path:
    """Return the path for a log: as requested if its directory exists on this node, else a temporary one."""
    if log.parent.is_dir():
        return log
    return Path(tempfile.gettempdir()) / f"peerloom-{os.getuid()}" / log.parent.name / log.name
