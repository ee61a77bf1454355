"""A language model that is a set of laws, in this process: no server, no weights, no key.

It behaves as its server (`peerloom simulate-llm`) does when called over HTTP: the same request and seed
give the same reply, and faults go through the same retries to the same errors. Limits and the prefix cache
are one provider's for all its clients in a process; processes do not know of each other, so with several of
them the limits of a whole run need the server.
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
_SEEN: dict[Fault, str] = {
    "429": "HTTP 429: simulated rate limit",
    "5xx": "HTTP 500: simulated failure",
    "garbage": "HTTP 200 with an invalid body (simulated garbage)",
    "half_closed": "simulated disconnect before the answer",
    "cut": "simulated disconnect within the answer",
    "content_type": "HTTP 200 with an invalid body (simulated HTML page)",
}
"""What a client sees of a fault."""


_PROVIDER = "_provider"


@dataclass(frozen=True, kw_only=True)
class SimulatedService(SimulatedBehavior):
    """The laws, and how its client meets the faults among them: `SimulatedService(latency=0.5, seed=7)`.

    Args:
        timeout: seconds after which a call that hangs is tried again.
        retry: how persistent the client is.
    """

    timeout: float = 600.0
    retry: Retry = field(default_factory=Retry)

    async def start(
        self, spawner: Spawner, notify: Callable[[str], None], log_dir: Path
    ) -> ReplicatedClientSpec:
        """Nothing to start."""
        notify(f"simulated model, latency {self.latency:g} s, seed {self.seed}")
        return self.spec()

    def spec(self) -> ReplicatedClientSpec:
        """A single replica, in whatever process calls it."""
        return ReplicatedClientSpec(
            model=MODEL, replicas=("this process",), dial=_SimulatedDial(self), retry=self.retry, price=FREE
        )

    def provider(self, now: float) -> SimulatedProvider:
        """What all clients in this process share; it opens at `now`, if it has not."""
        known: SimulatedProvider | None = self.__dict__.get(_PROVIDER)
        if known is None:
            known = self.__dict__[_PROVIDER] = SimulatedProvider(self, now)
        return known

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != _PROVIDER}

    async def watch(self, moved: Callable[[str, Sequence[str]], None]) -> None:
        """Wait for ever: it cannot die."""
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """Nothing to stop."""


@dataclass(frozen=True)
class _SimulatedDial:
    service: SimulatedService

    def __call__(self, name: str) -> "SimulatedBackend":
        return SimulatedBackend(self.service)


class SimulatedBackend:
    """The model itself. `sleep` passes the time of latencies, `clock` tells it; they are there for tests."""

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
        """Answer one request, or fail as the laws say of that try.

        Raises:
            Retryable: for a fault that may pass, or a limit.
            LLMRejected: for a malformed request, or a schema it cannot follow.
            ContextExceeded: if the prompt exceeds the context.
        """
        laws = self._service
        try:
            ask = read(to_body(request, MODEL, "json_schema"), laws.seed)
            fault = fault_of(ask, laws, attempt)
            answer = self._provider.chat(ask, fault, self._clock())
        except BadRequest as error:
            raise _rejected(error) from error
        made = await self._answered(answer, fault)
        payload = completion(made, MODEL, ask)
        return to_reply(payload, request, wrapped=bool(request.choices), seconds=made.seconds)

    async def embed(self, request: EmbedRequest, attempt: int) -> EmbedReply:
        """Vectors that a text and the seed decide; raises as `chat`."""
        laws = self._service
        body = {"input": list(request.texts), "dimensions": request.dimensions}
        try:
            ask = read_embed(body, laws.seed)
            fault = fault_of(ask, laws, attempt)
            answer = self._provider.embed(ask, fault, self._clock())
        except BadRequest as error:
            raise _rejected(error) from error
        made = await self._answered(answer, fault)
        return to_vectors(embeddings(ask, MODEL, laws.seed), request, made.seconds)

    async def healthy(self) -> bool:
        """It always is."""
        return True

    async def close(self) -> None:
        """Nothing to give back."""

    async def _answered(self, made: SimulatedReply | Refusal, fault: Fault) -> SimulatedReply:
        """The answer as a client gets it, after the wait that this takes.

        Raises:
            Retryable: if the request was refused, or meets a fault that leaves it without a reply.
        """
        laws = self._service
        if isinstance(made, Refusal):
            seconds = laws.retry_after if made.seconds is None else made.seconds
            wait = understood(seconds, laws.retry_after_as)
            raise Retryable(f"HTTP 429: simulated rate limit: {REFUSED[made.reason]}", wait, limit=True)
        got: SimulatedReply | None = None
        try:
            seconds = _seconds(made, fault, laws)
            if seconds > laws.timeout:
                await self._sleep(laws.timeout)
                raise Retryable(f"timeout (no reply in {laws.timeout:g} s)")
            await self._sleep(seconds)
            got = made
        finally:
            self._provider.over(fault, got)
        if fault not in REPLIES:
            limited = fault == "429"
            wait = understood(laws.retry_after, laws.retry_after_as) if limited else None
            raise Retryable(_SEEN[fault], wait, limit=limited)
        return made._replace(seconds=seconds)


def _seconds(made: SimulatedReply, fault: Fault, laws: SimulatedBehavior) -> float:
    """How long a client waits for what it gets, if it waits long enough."""
    if fault == "hang":
        return math.inf
    if fault in ("429", "5xx"):
        return 0.0
    return made.seconds + (laws.slow_seconds if fault == "slow" else 0.0)


def _rejected(error: BadRequest) -> LLMError:
    kind = ContextExceeded if error.code == "context_length_exceeded" else LLMRejected
    return kind(str(error))
