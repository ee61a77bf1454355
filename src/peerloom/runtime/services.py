"""Start, watch, and stop the services of a run."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from peerloom.protocol.leases.messages import Control
from peerloom.services.base import Service, ServiceSpec
from peerloom.services.lifecycle import Moved
from peerloom.services.llm.client.service import LLMService
from peerloom.services.llm.limits.service_quota import Limits
from peerloom.services.processes.spawn import Spawner


class RunServices:
    """The services of a run. Messages of feeders about leases are passed on in batches, in the background.

    Args:
        llm: the language model, which the run starts, watches and stops itself.
        others: the other services, by name.
    """

    def __init__(self, llm: LLMService, others: Mapping[str, Service] | None = None) -> None:
        self.llm = llm
        self.others = others or {}
        self._controls: list[Control] = []
        self._pending = asyncio.Event()
        self.specs: dict[str, ServiceSpec] = {}

    async def start(self, spawner: Spawner, notify: Callable[[str], None], log_dir: Path) -> None:
        """Start the services besides the language model, one after the other.

        Raises:
            ServiceError: if one cannot be started.
        """
        for name, service in self.others.items():
            self.specs[name] = await service.start(name, spawner, notify, log_dir)

    async def run(self, moved: Moved) -> None:
        """Watch these services, and pass on messages, until cancelled.

        Raises:
            ServiceError: when a service has failed.
        """
        async with asyncio.TaskGroup() as group:
            for service in self.others.values():
                group.create_task(service.watch(moved))
            await self._pass_on()

    def limits(self) -> dict[str, Limits]:
        """Return the limits of the services that have some."""
        return {name: spec.limits for name, spec in self.specs.items() if spec.limits.bounded}

    def control(self, messages: Sequence[Control]) -> None:
        """Pass messages on to the services whose resources tasks hold."""
        self._controls += messages
        self._pending.set()

    async def stop(self) -> None:
        """Stop these services."""
        for service in self.others.values():
            await service.stop()

    async def _pass_on(self) -> None:
        stateful = [self.others[name] for name, spec in self.specs.items() if spec.policy == "stateful"]
        while True:
            await self._pending.wait()
            self._pending.clear()
            controls, self._controls = self._controls, []
            async with asyncio.TaskGroup() as group:
                for service in stateful:
                    group.create_task(service.control(controls))
