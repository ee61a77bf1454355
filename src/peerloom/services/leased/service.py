"""Start the processes of a stateful service, and pass on the messages of feeders about its leases."""

import asyncio
import json
import secrets
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, ClassVar

import aiohttp

from peerloom.errors import ConfigError
from peerloom.options import FREE, Count, Options
from peerloom.protocol.leases.history import ControlHistory
from peerloom.protocol.leases.messages import Control, encode
from peerloom.services.base import Policy, Service, ServiceSpec
from peerloom.services.leased.auth import control_token
from peerloom.services.leased.client import NOT_READY, LeaseClient
from peerloom.services.leased.host import KEY
from peerloom.services.leased.resource import Resource
from peerloom.services.lifecycle import Moved
from peerloom.services.llm.client.context import ClientContext
from peerloom.services.llm.limits.service_quota import Limits
from peerloom.services.processes.group import Group
from peerloom.services.processes.replica import Replica
from peerloom.services.processes.server import Command, ServerAddress
from peerloom.services.processes.spawn import Spawner
from peerloom.services.secret import Secret

_RETRY_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class LeasedSpec(ServiceSpec):
    """Makes the clients of a stateful service."""

    policy: Policy = "stateful"
    service: str
    urls: tuple[str, ...]
    key: Secret
    per_task: int | None

    def connect(self, context: ClientContext) -> LeaseClient:
        """Return a client for the running event loop."""
        return LeaseClient(self.service, self.urls, self.key, context, self.per_task)


@dataclass(frozen=True, kw_only=True)
class StatefulOptions(Options):
    """The options of a stateful service. A subclass sets `resource`, and may add options of its resources."""

    resource: ClassVar[type[Resource]]
    section: ClassVar[str] = "services"

    leases: Annotated[Count, FREE] = 100
    """The number of resources that each process has at a time."""
    per_task: Annotated[Count | None, FREE] = None
    """The largest number of leases that a task holds. If it is set, only as many tasks are in flight as can
    hold theirs at the same time; by default tasks wait for them."""
    processes: Annotated[Count, FREE] = 1
    """The number of processes."""
    limits: Limits = field(default_factory=Limits)
    nodes: Annotated[bool, FREE] = False
    """Distribute the processes over all nodes of the run's cluster; by default they are on the driver's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.per_task is not None and self.per_task > self.leases:
            raise ConfigError(
                f"per_task is {self.per_task}, but each process has only leases={self.leases}, and a task "
                "holds all of its leases in one process"
            )

    def service(self) -> "StatefulService":
        """Return the service with these options."""
        return StatefulService(self)


class StatefulService(Service):
    """A service of resources that tasks hold, in processes of its own."""

    def __init__(self, options: StatefulOptions) -> None:
        self._options = options
        self._key = Secret(secrets.token_urlsafe(32))
        self._name = ""
        self._group: Group | None = None
        self._session: aiohttp.ClientSession | None = None
        self._history = ControlHistory()
        self._changed = asyncio.Event()
        self._ready: dict[Replica, int] = {}  # the number of restarts of its process that knows the history

    async def start(
        self, name: str, spawner: Spawner, notify: Callable[[str], None], log_dir: Path
    ) -> LeasedSpec:
        """Start the processes, and wait until they answer."""
        self._name = name
        self._group = Group(self._command(name), self._options.processes, everywhere=self._options.nodes)
        await self._group.start(spawner, notify, log_dir)
        self._session = aiohttp.ClientSession()
        await self._introduce()
        options, per_task = self._options, self._options.per_task
        return LeasedSpec(
            service=name,
            urls=self._urls(),
            key=self._key,
            per_task=per_task,
            max_tasks=options.leases // per_task * options.processes if per_task is not None else None,
            limits=options.limits,
        )

    async def watch(self, moved: Moved) -> None:
        """Keep the processes alive."""
        assert self._group is not None

        def changed() -> None:
            self._changed.set()
            moved(self._name, self._urls())

        async with asyncio.TaskGroup() as group:
            group.create_task(self._introduce_all())
            await self._group.watch(changed)

    async def control(self, messages: Sequence[Control]) -> None:
        """Tell all processes; one that has died is skipped, the next one gets the history."""
        self._history.add(messages)
        async with asyncio.TaskGroup() as group:
            for url in self._urls():
                group.create_task(self._tell(f"{url}/control", encode(list(messages))))

    async def stop(self) -> None:
        """Stop all processes."""
        if self._group is not None:
            await self._group.stop()
        if self._session is not None:
            await self._session.close()

    async def _introduce_all(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._introduce()

    async def _introduce(self) -> None:
        """Send the history to the processes that have started since; until then they grant nothing."""
        assert self._group is not None
        async with asyncio.TaskGroup() as group:
            for replica in self._group.replicas:
                if replica.state == "up" and self._ready.get(replica) != replica.restarts:
                    self._ready[replica] = replica.restarts
                    url = replica.url.removesuffix("/v1")
                    group.create_task(self._tell(f"{url}/history", encode(self._history.messages())))

    async def _tell(self, url: str, data: bytes) -> None:
        assert self._session is not None
        headers = {"Authorization": f"Bearer {control_token(self._key.reveal().encode())}"}
        while url.rpartition("/")[0] in self._urls():
            try:
                async with self._session.post(url, data=data, headers=headers) as response:
                    if response.status != NOT_READY:
                        response.raise_for_status()
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(_RETRY_SECONDS)

    def _urls(self) -> tuple[str, ...]:
        assert self._group is not None
        return tuple(url.removesuffix("/v1") for url in self._group.urls)

    def _command(self, name: str) -> Command:
        options, resource = self._options, type(self._options).resource
        common = {each.name for each in fields(StatefulOptions)}
        own = {each.name: getattr(options, each.name) for each in fields(options) if each.name not in common}

        def argv(address: ServerAddress) -> list[str]:
            config = {
                "resource": f"{resource.__module__}:{resource.__qualname__}",
                "path": sys.path,  # the resource may be in a file of the user's
                "options": own,
                "capacity": options.leases,
                "host": address.host,
                "port": address.port,
            }
            return [sys.executable, "-m", "peerloom.services.leased.host", json.dumps(config)]

        return Command(
            engine=name,
            description=f"a process of service {name}",
            argv=argv,
            env={KEY: self._key.reveal()},
            reuses_port=True,
            isolated=True,
            load_seconds=60.0,
        )
