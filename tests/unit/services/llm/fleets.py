"""A service at known addresses, and a client of it, without the checks that a run makes first."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import orjson

from peerloom.services.llm.base import ChatRequest
from peerloom.services.llm.client.client import ReplicatedClient, ReplicatedClientSpec
from peerloom.services.llm.client.context import ClientContext, Health
from peerloom.services.llm.hosted.backend import HttpDial
from peerloom.services.llm.http.endpoint import Endpoint
from peerloom.services.llm.providers.openai import OpenAIDialect
from peerloom.services.llm.simulated.behavior import SimulatedBehavior
from peerloom.services.llm.simulated.server.app import ServerConfig, serving
from peerloom.services.llm.usage.amounts import QuotaGrant, UsageReport, decode_reports, encode
from peerloom.services.secret import Secret

_DIALECT = ("structured", "limit_field", "extra_body", "shape")
_ENDPOINT = ("timeout", "connect_timeout")


def fleet(*urls: str, model: str = "m", api_key: str | None = None, **fields: Any) -> ReplicatedClientSpec:
    """Describe OpenAI-compatible replicas; `fields` are those of the dialect, `Endpoint`, and the spec."""
    secret = Secret(api_key) if api_key is not None else None
    there = {name: fields.pop(name) for name in _ENDPOINT if name in fields}
    endpoint = Endpoint(base_url=urls[0], api_key=secret, **there)
    dialect = OpenAIDialect(**{name: fields.pop(name) for name in _DIALECT if name in fields})
    return ReplicatedClientSpec(
        model=model, replicas=urls, backend_factory=HttpDial(endpoint, dialect, model), **fields
    )


def client(spec: ReplicatedClientSpec, sleep: Any = asyncio.sleep) -> ReplicatedClient:
    """A client that waits between tries with `sleep`."""
    return ReplicatedClient(spec, ClientContext(), sleep=sleep)


def question(number: int = 0, role: str = "student") -> ChatRequest:
    """A call of the conversation of that number."""
    messages = [{"role": "user", "content": f"{role} asks {number}"}]
    return ChatRequest(messages=messages, session=f"{number}-0", role=role)


class Context(ClientContext):
    """A context that keeps the latest health of the only service."""

    def __init__(self) -> None:
        super().__init__(on_health=self._hear)
        self.health = Health()

    def _hear(self, service: str, health: Health) -> None:
        self.health = health


def metered(spec: ReplicatedClientSpec, context: ClientContext) -> ReplicatedClient:
    """A client whose calls are reported and not limited, as after a refusal."""
    connected = spec.connect(context)
    context.apply_grants(encode([QuotaGrant(service=spec.service, number=0)]))
    return connected


def reading(context: ClientContext) -> UsageReport:
    """What the driver would be told of the usage of the only service."""
    (found,) = decode_reports(context.read_usage())
    return found


async def until(true: Any) -> None:
    """Wait for something that happens soon."""
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.005)


class Replica:
    """A simulated server that can be stopped, started again at the same port, and commanded."""

    def __init__(self, behavior: SimulatedBehavior) -> None:
        self._behavior = behavior
        self._up = AsyncExitStack()
        self.port = 0

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def start(self) -> None:
        """Listen."""
        config = ServerConfig(behavior=self._behavior, port=self.port, admin=True)
        self.port = await self._up.enter_async_context(serving(config))

    async def stop(self) -> None:
        """Be gone; connections break off."""
        await self._up.aclose()

    async def admin(self, command: str, body: Any = None) -> None:
        """Carry out a command, see `peerloom.services.llm.simulated.server.admin`."""
        data = b"" if body is None else orjson.dumps(body)
        url = f"http://127.0.0.1:{self.port}/admin/{command}"
        async with aiohttp.ClientSession() as session, session.post(url, data=data) as answer:
            assert answer.status == 200

    async def stats(self) -> dict[str, Any]:
        """What it counts."""
        url = f"http://127.0.0.1:{self.port}/stats"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return orjson.loads(await answer.read())


@asynccontextmanager
async def replicas(count: int, **behavior: Any) -> AsyncIterator[list[Replica]]:
    """So many servers, which listen inside the block unless they are stopped."""
    made = [Replica(SimulatedBehavior(**behavior)) for _ in range(count)]
    try:
        for each in made:
            await each.start()
        yield made
    finally:
        for each in made:
            await each.stop()
