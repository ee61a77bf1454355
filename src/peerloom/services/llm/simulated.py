"""A language model that is a set of laws, in this process: no server, no weights, no key.

It behaves as its server (`peerloom simulate-llm`) does when called over HTTP: the same request and seed
give the same reply, and faults go through the same retries to the same errors.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from peerloom.errors import ContextExceeded, LLMRejected
from peerloom.services.llm.ask import BadRequest, read
from peerloom.services.llm.base import ChatReply, ChatRequest, EmbedReply, EmbedRequest
from peerloom.services.llm.fleet import FleetSpec
from peerloom.services.llm.laws import Laws, answer, fault_of
from peerloom.services.llm.prices import FREE
from peerloom.services.llm.retry import Retry, Retryable
from peerloom.services.llm.wire import to_body, unwrap
from peerloom.services.spawn import Spawner
from peerloom.task import Usage

MODEL = "simulated"


@dataclass(frozen=True, kw_only=True)
class SimulatedService(Laws):
    """The laws, and how its client meets the faults among them: `SimulatedService(latency=0.5, seed=7)`.

    Args:
        timeout: seconds after which a call that hangs is tried again.
        retry: how persistent the client is.
    """

    timeout: float = 600.0
    retry: Retry = field(default_factory=Retry)

    async def start(self, spawner: Spawner, notify: Callable[[str], None], log_dir: Path) -> FleetSpec:
        """Nothing to start."""
        notify(f"simulated model, latency {self.latency:g} s, seed {self.seed}")
        return self.spec()

    def spec(self) -> FleetSpec:
        """A single replica, in whatever process calls it."""
        return FleetSpec(
            model=MODEL, replicas=("this process",), dial=_SimulatedDial(self), retry=self.retry, price=FREE
        )

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
    """The model itself. `sleep` passes the time of latencies, and is there for tests."""

    def __init__(
        self, service: SimulatedService, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._laws = service
        self._sleep = sleep

    async def chat(self, request: ChatRequest, attempt: int) -> ChatReply:
        """Answer one request, or fail as the laws say of that try.

        Raises:
            Retryable: for a fault that may pass.
            LLMRejected: for a malformed request, or a schema it cannot follow.
            ContextExceeded: if the prompt exceeds the context.
        """
        laws = self._laws
        try:
            ask = read(to_body(request, MODEL, "json_schema"), laws.seed)
            fault = fault_of(ask, laws, attempt)
            if fault == "429":
                raise Retryable("HTTP 429: simulated rate limit", laws.retry_after, limit=True)
            if fault == "5xx":
                raise Retryable("HTTP 503: simulated overload")
            if fault == "hang":
                await self._sleep(laws.timeout)
                raise Retryable(f"timeout (no reply in {laws.timeout:g} s)")
            made = answer(ask, laws, truncated=fault == "truncation")
        except BadRequest as error:
            kind = ContextExceeded if error.code == "context_length_exceeded" else LLMRejected
            raise kind(str(error)) from error
        await self._sleep(made.seconds)
        if fault == "garbage":
            raise Retryable("HTTP 200 with an invalid body (simulated garbage)")
        text = unwrap(made.text, request.choices) if request.choices else made.text
        return ChatReply(
            text=text,
            finish_reason=made.finish_reason,
            usage=Usage(made.prompt, made.completion, made.cached, 1),
            model=MODEL,
            seconds=made.seconds,
            message={"role": "assistant", "content": text},
        )

    async def embed(self, request: EmbedRequest, attempt: int) -> EmbedReply:
        """It has none in process; its server has."""
        raise LLMRejected(
            "the simulated model has no embeddings in process: serve it (peerloom simulate-llm)"
        )

    async def healthy(self) -> bool:
        """It always is."""
        return True

    async def close(self) -> None:
        """Nothing to give back."""
