"""Serve the simulated model in the process of its clients: no server, no weights, no key.

It behaves like its server (`peerloom simulate-llm`): the same request and seed give the same reply, and
faults lead to the same retries and errors. All clients in a process share the provider's limits and prefix
cache. Processes do not share them, so limits of a run with several processes need the server.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peerloom.errors import ContextExceeded, LLMError, LLMRejected
from peerloom.services.llm.base import ChatReply, ChatRequest, EmbedReply, EmbedRequest
from peerloom.services.llm.client.client import ReplicatedClientSpec
from peerloom.services.llm.retry import Retry, Retryable
from peerloom.services.llm.simulated.behavior import (
    REPLIES,
    Fault,
    SimulatedBehavior,
    SimulatedReply,
    fault_of,
)
from peerloom.services.llm.simulated.bodies import completion, embeddings
from peerloom.services.llm.simulated.provider import REFUSED, SimulatedProvider
from peerloom.services.llm.simulated.quota import Refusal
from peerloom.services.llm.simulated.request import BadRequest, read, read_embed
from peerloom.services.llm.simulated.waits import understood
from peerloom.services.llm.usage.prices import FREE
from peerloom.services.llm.wire_format.chat import to_body, to_reply, to_vectors
from peerloom.services.processes.spawn import Spawner

MODEL = "simulated"
_ERRORS: dict[Fault, str] = {
    "429": "HTTP 429: simulated rate limit",
    "5xx": "HTTP 500: simulated failure",
    "garbage": "HTTP 200 with an invalid body (simulated garbage)",
    "half_closed": "simulated disconnect before the answer",
    "cut": "simulated disconnect within the answer",
    "content_type": "HTTP 200 with an invalid body (simulated HTML page)",
}
"""The error of each fault, as a client of the server gets it."""

_PROVIDER = "_provider"


@dataclass(frozen=True, kw_only=True)
class SimulatedService(SimulatedBehavior):
    """A simulated model and the settings of its client, e.g. `SimulatedService(latency=0.5, seed=7)`.

    Args:
        timeout: the seconds after which a call without a response is retried.
        retry: the retry policy of the client.
    """

    timeout: float = 600.0
    retry: Retry = field(default_factory=Retry)

    async def start(
        self, spawner: Spawner, notify: Callable[[str], None], log_dir: Path
    ) -> ReplicatedClientSpec:
        """Return the spec; there is nothing to start."""
        notify(f"simulated model, latency {self.latency:g} s, seed {self.seed}")
        return self.spec()

    def spec(self) -> ReplicatedClientSpec:
        """Return a spec with one replica in the calling process."""
        return ReplicatedClientSpec(
            model=MODEL,
            replicas=("this process",),
            backend_factory=_SimulatedDial(self),
            retry=self.retry,
            price=FREE,
        )

    def provider(self, now: float) -> SimulatedProvider:
        """Return the provider shared by all clients in this process; the first call opens it at `now`."""
        known: SimulatedProvider | None = self.__dict__.get(_PROVIDER)
        if known is None:
            known = self.__dict__[_PROVIDER] = SimulatedProvider(self, now)
        return known

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != _PROVIDER}

    async def watch(self, moved: Callable[[str, Sequence[str]], None]) -> None:
        """Wait forever: the model cannot fail."""
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """Do nothing: there is nothing to stop."""


@dataclass(frozen=True)
class _SimulatedDial:
    service: SimulatedService

    def __call__(self, name: str) -> "SimulatedBackend":
        return SimulatedBackend(self.service)


class SimulatedBackend:
    """Answers requests in process. Tests replace `sleep`, which waits for latencies, and `clock`."""

    def __init__(
        self,
        service: SimulatedService,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service = service
        self._provider = service.provider(clock())
        self._sleep = sleep
        self._clock = clock

    async def chat(self, request: ChatRequest, attempt: int) -> ChatReply:
        """Answer one request, or raise the error of the attempt's fault.

        Raises:
            Retryable: for a transient fault, or a limit.
            LLMRejected: for a malformed request, or a schema that is not supported.
            ContextExceeded: if the prompt exceeds the context.
        """
        behavior = self._service
        try:
            parsed = read(to_body(request, MODEL, "json_schema"), behavior.seed)
            fault = fault_of(parsed, behavior, attempt)
            outcome = self._provider.chat(parsed, fault, self._clock())
        except BadRequest as error:
            raise _rejected(error) from error
        reply = await self._deliver(outcome, fault)
        payload = completion(reply, MODEL, parsed)
        return to_reply(payload, request, wrapped=bool(request.choices), seconds=reply.seconds)

    async def embed(self, request: EmbedRequest, attempt: int) -> EmbedReply:
        """Return vectors determined by the texts and the seed; raises the errors of `chat`."""
        behavior = self._service
        body = {"input": list(request.texts), "dimensions": request.dimensions}
        try:
            parsed = read_embed(body, behavior.seed)
            fault = fault_of(parsed, behavior, attempt)
            outcome = self._provider.embed(parsed, fault, self._clock())
        except BadRequest as error:
            raise _rejected(error) from error
        reply = await self._deliver(outcome, fault)
        return to_vectors(embeddings(parsed, MODEL, behavior.seed), request, reply.seconds)

    async def healthy(self) -> bool:
        """Return True."""
        return True

    async def close(self) -> None:
        """Do nothing: there are no connections."""

    async def _deliver(self, outcome: SimulatedReply | Refusal, fault: Fault) -> SimulatedReply:
        """Wait for the latency of a request, and return the reply as a client of the server gets it.

        Raises:
            Retryable: if the request was refused, or has a fault without a reply.
        """
        behavior = self._service
        if isinstance(outcome, Refusal):
            seconds = behavior.retry_after if outcome.seconds is None else outcome.seconds
            wait = understood(seconds, behavior.retry_after_as)
            raise Retryable(f"HTTP 429: simulated rate limit: {REFUSED[outcome.reason]}", wait, limit=True)
        received: SimulatedReply | None = None
        try:
            seconds = _seconds(outcome, fault, behavior)
            if seconds > behavior.timeout:
                await self._sleep(behavior.timeout)
                raise Retryable(f"timeout (no reply in {behavior.timeout:g} s)")
            await self._sleep(seconds)
            received = outcome
        finally:
            self._provider.finish(fault, received)
        if fault not in REPLIES:
            limited = fault == "429"
            wait = understood(behavior.retry_after, behavior.retry_after_as) if limited else None
            raise Retryable(_ERRORS[fault], wait, limit=limited)
        return outcome._replace(seconds=seconds)


def _seconds(reply: SimulatedReply, fault: Fault, behavior: SimulatedBehavior) -> float:
    """Return the seconds until a client without a timeout gets the reply or error."""
    if fault == "hang":
        return math.inf
    if fault in ("429", "5xx"):
        return 0.0
    return reply.seconds + (behavior.slow_seconds if fault == "slow" else 0.0)


def _rejected(error: BadRequest) -> LLMError:
    kind = ContextExceeded if error.code == "context_length_exceeded" else LLMRejected
    return kind(str(error))
