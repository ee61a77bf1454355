"""Route the calls of each role to its service, and to the fallback of an unavailable service.

Each service has its own replicas and limits. While a service without a fallback is unavailable its calls
wait; calls of a service with a fallback fail at once and are sent to the fallback.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from peerloom.errors import ConfigError, LLMDenied, LLMError, LLMUnavailable
from peerloom.options import FREE, Options
from peerloom.services.lifecycle import Moved
from peerloom.services.llm.base import (
    LLM,
    ChatReply,
    ChatRequest,
    EmbedReply,
    EmbedRequest,
    Reply,
    total,
    with_usage,
)
from peerloom.services.llm.client.client import ReplicatedClientSpec
from peerloom.services.llm.client.context import ClientContext
from peerloom.services.llm.client.routing import Routing
from peerloom.services.llm.client.service import ClientSpec, LLMService, start_step
from peerloom.services.llm.limits.service_quota import Limits
from peerloom.services.processes.spawn import Spawner
from peerloom.task import Usage

DEFAULT = "llm"
"""The service of every role without a service of its own."""


@dataclass(frozen=True, kw_only=True)
class ServiceOptions(Options):
    """The options of one service in a run.

    Raises:
        ConfigError: if an option is invalid.
    """

    limits: Limits = field(default_factory=Limits)
    """The provider's limits."""
    routing: Options | Mapping[str, Any] | None = None
    """How calls are spread over replicas: a `Routing`, or the keys that differ from the service's own."""
    fallback: Annotated[str | None, FREE] = None
    """The service (`llm`, or a name in `llms`) that is called while this one is unavailable."""

    def __post_init__(self) -> None:
        super().__post_init__()
        Routing().with_changes(self.routing)

    def applied(self, spec: ReplicatedClientSpec, name: str) -> ReplicatedClientSpec:
        """Return the spec with the service's name and these options."""
        return replace(
            spec,
            service=name,
            limits=self.limits,
            routing=spec.routing.with_changes(self.routing),
            patient=self.fallback is None,
        )


class ServiceRouter:
    """The services of a run, by name.

    Args:
        services: the services by name; the first one serves every role that is not in `roles`.
        roles: the name of the service of each other role.
        options: the options of services by name; default options for the others.

    Raises:
        ConfigError: for an unknown service, or services that fall back on each other.
    """

    def __init__(
        self,
        services: Mapping[str, LLMService],
        roles: Mapping[str, str] | None = None,
        options: Mapping[str, ServiceOptions] | None = None,
    ) -> None:
        self._services = dict(services)
        self._roles = dict(roles or {})
        self._options = {name: (options or {}).get(name) or ServiceOptions() for name in services}
        problems = routing_problems(
            {name: each.fallback for name, each in self._options.items()}, self._roles
        )
        if problems:
            raise ConfigError("\n".join(problems))

    @property
    def step(self) -> str:
        """The description of `start` to show to the user."""
        return ", ".join(dict.fromkeys(map(start_step, self._services.values())))

    async def start(
        self, name: str, spawner: Spawner, notify: Callable[[str], None], log_dir: Path
    ) -> ClientSpec:
        """Start all services, one after the other.

        Raises:
            ServiceError: if a service cannot be started or reached; those already started are stopped.
            ModelError: if there is no such model.
            ConfigError: if one of them is itself a router of services.
        """
        fleets: list[ReplicatedClientSpec] = []
        try:
            for each, service in self._services.items():
                named = notify if len(self._services) == 1 else partial(_notify, notify, each)
                logs = log_dir if not fleets else log_dir / each
                spec = await service.start(each, spawner, named, logs)
                if not isinstance(spec, ReplicatedClientSpec):
                    raise ConfigError(
                        f"{each} is no single service: name each service of a ServiceRouter in it"
                    )
                fleets.append(self._options[each].applied(spec, each))
        except BaseException:
            await self.stop()
            raise
        if len(fleets) == 1:
            return fleets[0]
        fallbacks = {name: each.fallback for name, each in self._options.items() if each.fallback is not None}
        return ServiceRouterSpec(tuple(fleets), self._roles, fallbacks)

    async def watch(self, moved: Moved) -> None:
        """Wait until one of the services fails."""
        async with asyncio.TaskGroup() as group:
            for name, service in self._services.items():
                group.create_task(service.watch(partial(_moved, moved, name)))

    async def stop(self) -> None:
        """Stop all services, even if stopping one of them fails."""
        async with AsyncExitStack() as stack:
            for service in self._services.values():
                stack.push_async_callback(service.stop)


@dataclass(frozen=True, slots=True)
class ServiceRouterSpec:
    """Creates clients of the services of a `ServiceRouter`. Picklable."""

    fleets: tuple[ReplicatedClientSpec, ...]
    roles: Mapping[str, str]
    fallbacks: Mapping[str, str]

    @property
    def model(self) -> str:
        """The models of all services, for the run's record."""
        return ", ".join(f"{fleet.service}={fleet.model}" for fleet in self.fleets)

    def map_services(
        self, change: Callable[[ReplicatedClientSpec], ReplicatedClientSpec]
    ) -> "ServiceRouterSpec":
        """Return a copy in which `change` was applied to each service."""
        return replace(self, fleets=tuple(map(change, self.fleets)))

    def connect(self, context: ClientContext | None = None) -> "ServiceRouterClient":
        """Return a client for the running event loop."""
        return ServiceRouterClient(self, context or ClientContext())


class ServiceRouterClient:
    """Calls the service of a request's role, or its fallback; see `ServiceRouter`."""

    def __init__(self, spec: ServiceRouterSpec, context: ClientContext) -> None:
        self._clients = {fleet.service: fleet.connect(context) for fleet in spec.fleets}
        self._default = spec.fleets[0].service
        self._roles = spec.roles
        self._fallbacks = spec.fallbacks

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Answer one request; errors are those of the last service called."""
        return await self._call(request.role, lambda client: client.chat(request))

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        """Embed texts; errors are those of the last service called."""
        return await self._call(request.role, lambda client: client.embed(request))

    async def close(self) -> None:
        """Close all connections."""
        async with AsyncExitStack() as stack:
            for client in self._clients.values():
                stack.push_async_callback(client.close)

    async def _call(self, role: str, send: Callable[[LLM], Awaitable[Reply]]) -> Reply:
        name = self._roles.get(role, self._default)
        discarded: Usage | None = None
        while True:
            try:
                reply = await send(self._clients[name])
                return reply if discarded is None else with_usage(reply, reply.usage + discarded)
            except LLMError as error:
                error.usage = discarded = total(error.usage, discarded)
                if name not in self._fallbacks or not isinstance(error, LLMUnavailable | LLMDenied):
                    raise
                name = self._fallbacks[name]


def routing_problems(fallbacks: Mapping[str, str | None], roles: Mapping[str, str]) -> list[str]:
    """Return an error message for each unknown service and each cycle of fallbacks.

    Args:
        fallbacks: the fallback of each service, or None.
        roles: the service of each role that names one.
    """
    known = ", ".join(fallbacks)
    found = [
        f"roles.{role}.llm={name}: there is no such service; there are: {known}"
        for role, name in roles.items()
        if name not in fallbacks
    ]
    for service, given in fallbacks.items():
        seen, name = [service], given
        while name is not None and name in fallbacks and name not in seen:
            seen.append(name)
            name = fallbacks[name]
        if name is not None and name not in fallbacks:
            found.append(f"the fallback of {seen[-1]}, {name}, is no service; there are: {known}")
        elif name is not None and name == min(seen):  # report a cycle once, not for each of its services
            found.append(f"the services {' -> '.join([*seen, name])} fall back on each other for ever")
    return list(dict.fromkeys(found))


def _notify(notify: Callable[[str], None], name: str, text: str) -> None:
    notify(f"{name}: {text}")


def _moved(moved: Moved, name: str, _: str, urls: Sequence[str]) -> None:
    """Report the replicas under the name that the router has for the service."""
    moved(name, urls)
