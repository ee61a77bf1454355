"""`peerloom serve keep`: what `serve up` starts, and nobody else. Reads its order from the standard input."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from peerloom.config.serve import LlamaCppServers, RayServe, Served, SglangServers, VllmServers, checked
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
"""Connects this process to the Ray cluster of the order."""

_PLACING = {"engine", "replicas", "host", "gpus"}


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to keep; no secrets, these are in the environment.

    Args:
        path: the fleet's file.
        keys: as `config.serve` has them.
        ray: the cluster to place it on; None is this machine.
        key_variable: the environment variable with the key that calls have to show.
    """

    path: str
    keys: dict[str, Any]
    ray: str | None = None
    key_variable: str | None = None


def keep() -> None:
    """Keep a fleet until SIGTERM."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    asyncio.run(_keep(order))


async def _keep(order: Order) -> None:
    stopped = asyncio.Event()
    _listen(stopped)

    async def connected() -> None:
        """Connect to Ray, which takes the signals' handlers away."""
        from peerloom.runtime.engines.ray.cluster import connect  # noqa: PLC0415 - Ray is slow to import

        try:
            await asyncio.to_thread(connect, order.ray)
        except EngineError as error:
            raise ServiceError(str(error)) from error
        finally:
            _listen(stopped)

    path, served = Path(order.path), checked(order.keys)
    serving, model = _serving(order, path.stem, served, connected)
    entry = Entry(
        name=path.stem,
        model=model,
        engine=served.engine,
        endpoints=(),
        key=order.key_variable is not None,
        lora=isinstance(served, VllmServers) and served.lora,
        ray=_outlives(order, served),
        log=str(log_dir_of(path)),
    )
    await Keeper(path, entry, serving, _tell).run(stopped)


def _outlives(order: Order, served: Served) -> str | None:
    """The cluster as `serve down` finds it, in whatever environment that is called."""
    if not isinstance(served, RayServe):
        return order.ray
    from peerloom.runtime.engines.ray.cluster import cluster_address  # noqa: PLC0415 - Ray is slow to import

    return cluster_address(order.ray)


def _listen(stopped: asyncio.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)


def _serving(order: Order, name: str, served: Served, connected: Connect) -> tuple[Serving, str]:
    """What is to be kept, and what its model is called."""
    if isinstance(served, RayServe):
        from peerloom.runtime.engines.ray.serve_app import ServeApp  # noqa: PLC0415 - Ray is slow to import
        from peerloom.runtime.engines.ray.serving import RayServing  # noqa: PLC0415

        called = served.served_name or served.model
        keys = served.model_dump(exclude={"engine", "served_name", "placement_group_config"})
        group = served.placement_group_config
        placement = group.model_dump(mode="json", exclude_none=True) if group is not None else None
        app = ServeApp(app=name, name=called, placement_group_config=placement, **keys)
        return RayServing(connected, app), called
    key = Secret.from_env(order.key_variable) if order.key_variable else None
    run, model = _command(served, Path(order.path), key)
    group = Group(run, served.replicas, everywhere=order.ray is not None, host=served.host)
    return Processes(group, _spawner(order.ray, served, connected)), model


def _command(
    served: LlamaCppServers | VllmServers | SglangServers, fleet: Path, key: Secret | None
) -> tuple[Command, str]:
    keys = served.model_dump(exclude=_PLACING, exclude_none=True)
    if isinstance(served, LlamaCppServers):
        path = pull(served.model)
        sizes: dict[str, Any] = served.model_dump(include={"slots", "context", "threads"})
        return command(served.model, path, **sizes, key=key), named(served.model, path)
    if isinstance(served, VllmServers):
        engine = Vllm(**keys, adapters=lambda: adapters_of(fleet))
    else:
        engine = Sglang(**keys)
    return engine.command(key), engine.name


def _spawner(
    address: str | None, served: LlamaCppServers | VllmServers | SglangServers, connected: Connect
) -> Spawner:
    if address is None:
        return LocalSpawner()
    from peerloom.runtime.engines.ray.spawner import RaySpawner  # noqa: PLC0415 - Ray is slow to import

    gpus = 0.0
    if not isinstance(served, LlamaCppServers):
        gpus = served.tensor_parallel_size if served.gpus is None else served.gpus
    return RaySpawner(connected, {"num_gpus": gpus} if gpus else {})


def _tell(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", flush=True)
