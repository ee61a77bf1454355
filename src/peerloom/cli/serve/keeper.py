"""Implement `peerloom serve keep`: supervise a fleet in the background.

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

from peerloom.config.serve import (
    LlamaCppServers,
    RayServe,
    ServeOptions,
    SglangServers,
    VllmServers,
    check_serve_options,
)
from peerloom.errors import EngineError, ServiceError
from peerloom.services.fleets.adapters import adapters_of
from peerloom.services.fleets.control import log_dir_of
from peerloom.services.fleets.directory import Entry
from peerloom.services.fleets.engines import Sglang, Vllm
from peerloom.services.fleets.keeper import Keeper, Processes, Serving
from peerloom.services.llm.llamacpp.service import command, named
from peerloom.services.llm.llamacpp.weights import pull
from peerloom.services.processes.group import Group
from peerloom.services.processes.server import Command
from peerloom.services.processes.spawn import LocalSpawner, Spawner
from peerloom.services.secret import Secret

Connect = Callable[[], Awaitable[None]]
"""A function that connects this process to the Ray cluster of the order."""

_PLACEMENT_KEYS = {"engine", "replicas", "host", "gpus"}


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """The description of a fleet to start; secrets are passed in the environment.

    Args:
        path: the fleet's file.
        keys: the keys of a class in `config.serve`.
        ray: the address of the cluster to place the fleet on; None for this machine.
        key_variable: the environment variable with the key that calls must send.
    """

    path: str
    keys: dict[str, Any]
    ray: str | None = None
    key_variable: str | None = None


def keep() -> None:
    """Run a fleet until SIGTERM."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    asyncio.run(_keep(order))


async def _keep(order: Order) -> None:
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
    serving, model = _serving(order, path.stem, options, connect_to_ray)
    entry = Entry(
        name=path.stem,
        model=model,
        engine=options.engine,
        endpoints=(),
        key=order.key_variable is not None,
        lora=isinstance(options, VllmServers) and options.lora,
        ray=_ray_address(order, options),
        log=str(log_dir_of(path)),
    )
    await Keeper(path, entry, serving, _log).run(stopped)


def _ray_address(order: Order, options: ServeOptions) -> str | None:
    """Return the cluster address by which `serve down` finds the fleet, independent of its environment."""
    if not isinstance(options, RayServe):
        return order.ray
    from peerloom.runtime.engines.ray.cluster import cluster_address  # noqa: PLC0415 - Ray is slow to import

    return cluster_address(order.ray)


def _handle_signals(stopped: asyncio.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)


def _serving(order: Order, name: str, options: ServeOptions, connect: Connect) -> tuple[Serving, str]:
    """Return the servers or application to supervise, and the model's name."""
    if isinstance(options, RayServe):
        from peerloom.runtime.engines.ray.serve_app import ServeApp  # noqa: PLC0415 - Ray is slow to import
        from peerloom.runtime.engines.ray.serving import RayServing  # noqa: PLC0415

        model = options.served_name or options.model
        keys = options.model_dump(exclude={"engine", "served_name", "placement_group_config"})
        group = options.placement_group_config
        placement = group.model_dump(mode="json", exclude_none=True) if group is not None else None
        app = ServeApp(app=name, name=model, placement_group_config=placement, **keys)
        return RayServing(connect, app), model
    key = Secret.from_env(order.key_variable) if order.key_variable else None
    run, model = _command(options, Path(order.path), key)
    group = Group(run, options.replicas, everywhere=order.ray is not None, host=options.host)
    return Processes(group, _spawner(order.ray, options, connect)), model


def _command(
    options: LlamaCppServers | VllmServers | SglangServers, fleet: Path, key: Secret | None
) -> tuple[Command, str]:
    keys = options.model_dump(exclude=_PLACEMENT_KEYS, exclude_none=True)
    if isinstance(options, LlamaCppServers):
        path = pull(options.model)
        sizes: dict[str, Any] = options.model_dump(include={"slots", "context", "threads"})
        return command(options.model, path, **sizes, key=key), named(options.model, path)
    if isinstance(options, VllmServers):
        engine = Vllm(**keys, adapters=lambda: adapters_of(fleet))
    else:
        engine = Sglang(**keys)
    return engine.command(key), engine.name


def _spawner(
    address: str | None, options: LlamaCppServers | VllmServers | SglangServers, connect: Connect
) -> Spawner:
    if address is None:
        return LocalSpawner()
    from peerloom.runtime.engines.ray.spawner import RaySpawner  # noqa: PLC0415 - Ray is slow to import

    gpus = 0.0
    if not isinstance(options, LlamaCppServers):
        gpus = options.tensor_parallel_size if options.gpus is None else options.gpus
    return RaySpawner(connect, {"num_gpus": gpus} if gpus else {})


def _log(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", flush=True)
