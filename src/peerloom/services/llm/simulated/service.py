"""Serve the simulated model in the process of its clients: no server, no weights, no key.

It is a transport that answers HTTP requests in process, so that a call is encoded, retried and decoded like
one of its server (`peerloom simulate-llm`): the same request and seed give the same reply. All clients in a
process share the provider's limits and prefix cache. Processes do not share them, so limits of a run with
several processes need the server.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yarl import URL

from peerloom.services.llm.client.client import ReplicatedClientSpec
from peerloom.services.llm.client.service import LLMService
from peerloom.services.llm.hosted.backend import HttpBackend
from peerloom.services.llm.http.base import HttpResponse, TransportError
from peerloom.services.llm.http.endpoint import Endpoint
from peerloom.services.llm.providers.openai import OpenAIDialect
from peerloom.services.llm.retry import Retry
from peerloom.services.llm.simulated.behavior import SimulatedBehavior
from peerloom.services.llm.simulated.provider import SimulatedProvider
from peerloom.services.llm.simulated.request import read, read_completion, read_embed
from peerloom.services.llm.usage.prices import FREE
from peerloom.services.processes.spawn import Spawner

MODEL = "simulated"
_URL = "http://in-process/v1"
_READERS = {"/v1/chat/completions": read, "/v1/completions": read_completion, "/v1/embeddings": read_embed}
_PROVIDER = "_provider"

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class SimulatedService(SimulatedBehavior, LLMService):
    """A simulated model and the settings of its client, e.g. `SimulatedService(latency=0.5, seed=7)`.

    Args:
        timeout: the seconds after which a call without a response is retried.
        retry: the retry policy of the client.
    """

    timeout: float = 600.0
    retry: Retry = field(default_factory=Retry)

    async def start(
        self, name: str, spawner: Spawner, notify: Callable[[str], None], log_dir: Path
    ) -> ReplicatedClientSpec:
        """Return the spec; there is nothing to start."""
        notify(f"simulated model, latency {self.latency:g} s, seed {self.seed}")
        return self.spec()

    def spec(self) -> ReplicatedClientSpec:
        """Return a spec with one replica in the calling process."""
        return ReplicatedClientSpec(
            model=MODEL,
            replicas=("this process",),
            backend_factory=self,
            retry=self.retry,
            price=FREE,
            provider="simulated",
        )

    def __call__(self, replica: str, *, sleep: Sleep = asyncio.sleep) -> HttpBackend:
        """Return a backend, as `ReplicatedClientSpec.backend_factory`; `sleep` waits for latencies."""
        return HttpBackend(
            SimulatedEndpoint(base_url=_URL, service=self, sleep=sleep),
            OpenAIDialect(structured="json_schema"),
            MODEL,
        )

    def provider(self, now: float) -> SimulatedProvider:
        """Return the provider shared by all clients in this process; the first call opens it at `now`."""
        known: SimulatedProvider | None = self.__dict__.get(_PROVIDER)
        if known is None:
            known = self.__dict__[_PROVIDER] = SimulatedProvider(self, MODEL, now)
        return known

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != _PROVIDER}


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedEndpoint(Endpoint):
    """An address whose requests are answered in process."""

    service: SimulatedService
    sleep: Sleep

    def open_transport(self, headers: Mapping[str, str]) -> "SimulatedTransport":
        """Return a transport to the provider of this process."""
        return SimulatedTransport(self.service, self.sleep)


class SimulatedTransport:
    """Answers the requests to a simulated model in process; `sleep` waits for latencies."""

    def __init__(self, service: SimulatedService, sleep: Sleep) -> None:
        self._timeout = service.timeout
        self._provider = service.provider(time.monotonic())
        self._sleep = sleep

    async def send(self, method: str, url: URL, body: bytes, headers: Mapping[str, str]) -> HttpResponse:
        """Answer one request; see `Transport.send`."""
        if method == "GET":  # a health check
            return HttpResponse(200, (), b"{}")
        response, admitted = self._provider.respond(_READERS[url.path], body, time.monotonic())
        seconds = math.inf if response.delay is None else response.delay + response.trickle
        sent = False
        try:
            if seconds > self._timeout:
                await self._sleep(self._timeout)
                raise TransportError(f"timeout (no reply in {self._timeout:g} s)")
            await self._sleep(seconds)
            sent = True
        finally:
            if admitted is not None:
                self._provider.finish(admitted, sent=sent)
        if response.closed:
            raise TransportError(
                f"disconnected {'within' if response.closed == 'body' else 'before'} the answer"
            )
        fields = ((b"Content-Type", response.content_type), *response.headers)
        return HttpResponse(response.status, fields, response.body)

    async def close(self) -> None:
        """Do nothing: there are no connections."""
