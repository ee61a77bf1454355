"""A language model that is a set of laws, in this process: no server, no weights, no key.

It behaves as its server (`peerloom simulate-llm`) does when called over HTTP: the same request and seed
give the same reply, and faults go through the same retries to the same errors.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from peerloom.errors import ContextExceeded, LLMRejected
from peerloom.services.llm.ask import Ask, BadRequest, read
from peerloom.services.llm.base import ChatReply, ChatRequest
from peerloom.services.llm.laws import Answer, Laws, answer, fault_of
from peerloom.services.llm.retry import Retrier, Retry, Retryable
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

    async def start(
        self, spawner: Spawner, notify: Callable[[str], None], log_dir: Path
    ) -> "SimulatedService":
        """Nothing to start: it is its own client spec."""
        notify(f"simulated model, latency {self.latency:g} s, seed {self.seed}")
        return self

    def connect(self, *, concurrency: int) -> "SimulatedLLM":
        """A client; they are all alike."""
        return SimulatedLLM(self)

    async def watch(self) -> None:
        """Wait for ever: it cannot die."""
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """Nothing to stop."""


class SimulatedLLM:
    """The model itself. `sleep` passes the time of latencies and retries, and is there for tests."""

    def __init__(
        self, service: SimulatedService, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._laws = service
        self._sleep = sleep
        self._retrier = Retrier(service.retry, "the simulated model", sleep=sleep)

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Answer one request.

        Raises:
            LLMUnavailable: when faults have used up the attempts.
            LLMRejected: for a malformed request, or a schema it cannot follow.
            ContextExceeded: if the prompt exceeds the context.
        """
        try:
            ask = read(to_body(request, MODEL, "json_schema"), self._laws.seed)
            made = await self._answered(ask)
        except BadRequest as error:
            kind = ContextExceeded if error.code == "context_length_exceeded" else LLMRejected
            raise kind(str(error)) from error
        text = unwrap(made.text, request.choices) if request.choices else made.text
        return ChatReply(
            text=text,
            finish_reason=made.finish_reason,
            usage=Usage(made.prompt, made.completion, made.cached, 1),
            model=MODEL,
            seconds=made.seconds,
            message={"role": "assistant", "content": text},
        )

    async def close(self) -> None:
        """Nothing to give back."""

    async def _answered(self, ask: Ask) -> Answer:
        began, attempts = time.monotonic(), itertools.count()
        try:
            return await self._attempt(ask, attempts)
        except Retryable as failure:
            return await self._retrier.again(failure, began, self._attempt, ask, attempts)

    async def _attempt(self, ask: Ask, attempts: Iterator[int]) -> Answer:
        laws = self._laws
        fault = fault_of(ask, laws, next(attempts))
        if fault == "429":
            raise Retryable("HTTP 429: simulated rate limit", laws.retry_after)
        if fault == "5xx":
            raise Retryable("HTTP 503: simulated overload")
        if fault == "hang":
            await self._sleep(laws.timeout)
            raise Retryable(f"timeout (no reply in {laws.timeout:g} s)")
        made = answer(ask, laws, truncated=fault == "truncation")
        await self._sleep(made.seconds)
        if fault == "garbage":
            raise Retryable("HTTP 200 with an invalid body (simulated garbage)")
        return made
