"""Several services in one run: which one answers an agent, and which one steps in when that is away.

Each is a fleet with limits of its own. A service that has a fallback is impatient: where another would make
its calls wait until it is back, it says at once that it is away, and the next in line is asked.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from peerloom.errors import ConfigError, LLMDenied, LLMError, LLMUnavailable
from peerloom.services.llm.base import LLM, ChatReply, ChatRequest, EmbedReply, EmbedRequest
from peerloom.services.llm.client.client import ReplicatedClientSpec
from peerloom.services.llm.client.hedge import Hedge
from peerloom.services.llm.client.routing import Routing
from peerloom.services.llm.client.service import ClientSpec, LLMService, Moved, start_step
from peerloom.services.llm.limits.quota_client import QuotaClient
from peerloom.services.llm.limits.service_quota import Limits
from peerloom.services.llm.usage.prices import Prices
from peerloom.services.llm.usage.settling import replaced, total
from peerloom.services.processes.spawn import Spawner
from peerloom.task import Usage

DEFAULT = "llm"
"""The service of every role that names none."""

Request = TypeVar("Request", ChatRequest, EmbedRequest)
Reply = TypeVar("Reply", ChatReply, EmbedReply)
Ask = Callable[[LLM, Request], Awaitable[Reply]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceOptions:
    """How a run uses one service.

    Args:
        limits: what its provider allows.
        routing: how calls are spread over its replicas; or those fields of it that are to differ from the
            service's own.
        hedge: when a second request is sent beside a slow one; None is never.
        fallback: the service that steps in when it is away, or has turned the run out.

    Raises:
        ConfigError: for a routing that cannot be.
    """

    limits: Limits = field(default_factory=Limits)
    routing: Routing | Mapping[str, Any] = field(default_factory=dict[str, Any])
    hedge: Hedge | None = None
    fallback: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.routing, Routing):
            Routing().but(self.routing)

    def applied(self, spec: ReplicatedClientSpec, name: str) -> ReplicatedClientSpec:
        """The service of that name, used in this way."""
        return replace(
            spec,
            service=name,
            limits=self.limits,
            routing=self.routing if isinstance(self.routing, Routing) else spec.routing.but(self.routing),
            hedge=self.hedge or spec.hedge,
            patient=self.fallback is None,
        )


class ServiceRouter:
    """The services of a run, by name.

    Args:
        services: the first is for every role that is not in `roles`.
        roles: the service's name for each role that has another one.
        terms: how they are used, by name, where that is not the usual way.

    Raises:
        ConfigError: for a name that no service has, or services that fall back on each other.
    """

    def __init__(
        self,
        services: Mapping[str, LLMService],
        roles: Mapping[str, str] | None = None,
        terms: Mapping[str, ServiceOptions] | None = None,
    ) -> None:
        self._services = dict(services)
        self._roles = dict(roles or {})
        self._terms = {name: (terms or {}).get(name) or ServiceOptions() for name in services}
        problems = broken_line({name: each.fallback for name, each in self._terms.items()}, self._roles)
        if problems:
            raise ConfigError("\n".join(problems))

    @property
    def step(self) -> str:
        """What `start` does, for a person to read."""
        return ", ".join(dict.fromkeys(map(start_step, self._services.values())))

    async def start(self, spawner: Spawner, notify: Callable[[str], None], log_dir: Path) -> ClientSpec:
        """Start all of them, one after the other.

        Raises:
            ServiceError: if one cannot be started or reached; those that were started are stopped.
            ModelError: if there is no such model.
            ConfigError: if one of them is several services itself.
        """
        fleets: list[ReplicatedClientSpec] = []
        try:
            for name, service in self._services.items():
                said = notify if len(self._services) == 1 else partial(_say, notify, name)
                logs = log_dir if not fleets else log_dir / name
                spec = await service.start(spawner, said, logs)
                if not isinstance(spec, ReplicatedClientSpec):
                    raise ConfigError(f"{name} is no single service: name each service of a lineup in it")
                fleets.append(self._terms[name].applied(spec, name))
        except BaseException:
            await self.stop()
            raise
        if len(fleets) == 1:
            return fleets[0]
        fallbacks = {name: each.fallback for name, each in self._terms.items() if each.fallback is not None}
        return ServiceRouterSpec(tuple(fleets), self._roles, fallbacks)

    async def watch(self, moved: Moved) -> None:
        """Wait until one of them dies."""
        async with asyncio.TaskGroup() as group:
            for name, service in self._services.items():
                group.create_task(service.watch(partial(_under, moved, name)))

    async def stop(self) -> None:
        """Stop all of them, whatever becomes of each."""
        async with AsyncExitStack() as stack:
            for service in self._services.values():
                stack.push_async_callback(service.stop)


@dataclass(frozen=True, slots=True)
class ServiceRouterSpec:
    """How to reach the services of a run; makes clients. Picklable. See `ServiceRouter`."""

    fleets: tuple[ReplicatedClientSpec, ...]
    roles: Mapping[str, str]
    fallbacks: Mapping[str, str]

    @property
    def model(self) -> str:
        """All models, for the run's record of who has worked on it."""
        return ", ".join(f"{fleet.service}={fleet.model}" for fleet in self.fleets)

    def metered(self, everything: bool) -> "ServiceRouterSpec":
        """The same, with calls metered where a service has limits, or everywhere."""
        return replace(self, fleets=tuple(fleet.metered(everything) for fleet in self.fleets))

    def priced(self, prices: Prices) -> "ServiceRouterSpec":
        """The same, with what tokens cost."""
        return replace(self, fleets=tuple(fleet.priced(prices) for fleet in self.fleets))

    def connect(self, desk: QuotaClient | None = None) -> "ServiceRouterClient":
        """A client for the running event loop."""
        return ServiceRouterClient(self, desk or QuotaClient())


class ServiceRouterClient:
    """Calls the service of whoever asks; see `ServiceRouter`."""

    def __init__(self, spec: ServiceRouterSpec, desk: QuotaClient) -> None:
        self._clients = {fleet.service: fleet.connect(desk) for fleet in spec.fleets}
        self._first = spec.fleets[0].service
        self._roles = spec.roles
        self._fallbacks = spec.fallbacks

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Answer one request; errors are those of the last service that was asked."""
        return await self._ask(request, lambda client, asked: client.chat(asked))

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        """As `chat`."""
        return await self._ask(request, lambda client, asked: client.embed(asked))

    async def close(self) -> None:
        """Close all connections."""
        async with AsyncExitStack() as stack:
            for client in self._clients.values():
                stack.push_async_callback(client.close)

    async def _ask(self, request: Request, ask: Ask[Request, Reply]) -> Reply:
        name = self._roles.get(request.role, self._first)
        discarded: Usage | None = None
        while True:
            try:
                reply = await ask(self._clients[name], request)
                return reply if discarded is None else replaced(reply, reply.usage + discarded)
            except LLMError as error:
                error.usage = discarded = total(error.usage, discarded)
                if name not in self._fallbacks or not isinstance(error, LLMUnavailable | LLMDenied):
                    raise
                name = self._fallbacks[name]


def broken_line(fallbacks: Mapping[str, str | None], roles: Mapping[str, str]) -> list[str]:
    """A line for each role or fallback that names no service, or leads back to where it began.

    Args:
        fallbacks: of each service.
        roles: the service of each role that names one.
    """
    there = ", ".join(fallbacks)
    found = [
        f"roles.{role}.llm={name}: there is no such service; there are: {there}"
        for role, name in roles.items()
        if name not in fallbacks
    ]
    for service, given in fallbacks.items():
        seen, name = [service], given
        while name is not None and name in fallbacks and name not in seen:
            seen.append(name)
            name = fallbacks[name]
        if name is not None and name not in fallbacks:
            found.append(f"the fallback of {seen[-1]}, {name}, is no service; there are: {there}")
        elif name is not None and name == min(seen):  # once, not from each of them
            found.append(f"the services {' -> '.join([*seen, name])} fall back on each other for ever")
    return list(dict.fromkeys(found))


def _say(notify: Callable[[str], None], name: str, text: str) -> None:
    notify(f"{name}: {text}")


def _under(moved: Moved, name: str, _: str, urls: Sequence[str]) -> None:
    moved(name, urls)
