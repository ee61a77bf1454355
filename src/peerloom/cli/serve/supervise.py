"""Implement `peerloom serve supervise`: run a fleet in the background.

Only `serve up` starts it, and sends it an `Order` on standard input.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from peerloom.config.serve import ServeOptions, check_serve_options
from peerloom.errors import EngineError, ServiceError
from peerloom.runtime.engines.ray.serve_app import RayServeFleet
from peerloom.services.fleets.control import log_dir_of
from peerloom.services.fleets.directory import Entry
from peerloom.services.fleets.engines import ProcessFleet, VllmFleet
from peerloom.services.fleets.supervisor import FleetSupervisor, Processes, Serving
from peerloom.services.processes.group import Group
from peerloom.services.processes.spawn import LocalSpawner, Spawner
from peerloom.services.secret import Secret

Connect = Callable[[], Awaitable[None]]
"""A function that connects this process to the Ray cluster of the order."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """The description of a fleet to start; secrets are passed in the environment.

    Args:
        path: the fleet's file.
        keys: the options of the fleet, see `config.serve`.
        ray: the address of the cluster to place the fleet on; None for this machine.
        key_variable: the environment variable with the key that calls must send.
    """

    path: str
    keys: dict[str, Any]
    ray: str | None = None
    key_variable: str | None = None


def supervise() -> None:
    """Run a fleet until SIGTERM."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    asyncio.run(_supervise(order))


async def _supervise(order: Order) -> None:
    stopped = asyncio.Event()
    _handle_signals(stopped)

    async def connect_to_ray() -> None:
        """Connect to Ray, and restore the signal handlers that it replaces."""
        from peerloom.runtime.engines.ray.cluster import connect  # noqa: PLC0415 - Ray is slow to import

        try:
            await asyncio.to_thread(connect, order.ray)
        except EngineError as error:
            raise ServiceError(str(error)) from error
        finally:
            _handle_signals(stopped)

    path, options = Path(order.path), check_serve_options(order.keys)
    entry = Entry(
        name=path.stem,
        model=options.name,
        engine=options.engine,
        endpoints=(),
        key=order.key_variable is not None,
        lora=isinstance(options, VllmFleet) and options.lora,
        ray=_ray_address(order, options),
        log=str(log_dir_of(path)),
    )
    await FleetSupervisor(path, entry, _serving(order, path, options, connect_to_ray), _log).run(stopped)


def _ray_address(order: Order, options: ServeOptions) -> str | None:
    """Return the cluster address by which `serve down` finds the fleet, independent of its environment."""
    if not isinstance(options, RayServeFleet):
        return order.ray
    from peerloom.runtime.engines.ray.cluster import cluster_address  # noqa: PLC0415 - Ray is slow to import

    return cluster_address(order.ray)


def _handle_signals(stopped: asyncio.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)


def _serving(order: Order, path: Path, options: ServeOptions, connect: Connect) -> Serving:
    """Return the servers or application to supervise."""
    if isinstance(options, RayServeFleet):
        from peerloom.runtime.engines.ray.serving import RayServing  # noqa: PLC0415 - Ray is slow to import

        return RayServing(connect, path.stem, options)
    key = Secret.from_env(order.key_variable) if order.key_variable else None
    on_ray = order.ray is not None
    group = Group(options.command(path, key), options.replicas, everywhere=on_ray, host=options.host)
    return Processes(group, _ray_spawner(options, connect) if on_ray else LocalSpawner())


def _ray_spawner(options: ProcessFleet, connect: Connect) -> Spawner:
    from peerloom.runtime.engines.ray.spawner import RaySpawner  # noqa: PLC0415 - Ray is slow to import

    gpus = options.gpus_on_ray
    return RaySpawner(connect, {"num_gpus": gpus} if gpus else {})


def _log(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", flush=True)
