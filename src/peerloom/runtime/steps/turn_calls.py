"""Pass on the calls that an agent makes in one turn, and record them."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import CoroutineType
from typing import Any, TypeVar

import msgspec

from peerloom.agents.messages import call_ids
from peerloom.agents.toolcalls import with_ids
from peerloom.errors import CallError, LLMError
from peerloom.runtime.steps.call_recorder import CallRecorder
from peerloom.runtime.steps.leases import LeasedService, LeasedServices, LeaseHandle, keep_leases
from peerloom.runtime.steps.messages import check_messages
from peerloom.runtime.steps.recorded_calls import RecordedCalls, digest_of, save
from peerloom.runtime.steps.time_limit import TurnTimer
from peerloom.services.base import ConnectedService
from peerloom.services.llm.base import LLM, ChatReply, ChatRequest, EmbedReply, EmbedRequest
from peerloom.services.llm.limits.limiter import ServiceLimiter
from peerloom.services.llm.usage.amounts import Amount
from peerloom.task import Execution, Header, ModelCall, SavedCall, Task, TurnLeases, Usage

Request = TypeVar("Request", ChatRequest, EmbedRequest)
Reply = TypeVar("Reply", ChatReply, EmbedReply)
T = TypeVar("T")

OnCall = Callable[[Header, SavedCall], None]
"""Called with each answered call, and the header of its task."""

NO_SERVICES: Mapping[str, ConnectedService] = {}

_ONE_CALL = Amount(requests=1.0)
_decode = msgspec.msgpack.Decoder().decode


class TurnCalls:
    """The calls of one turn. This is the language model that the agent sees, and opens the other services.

    It adds up the usage, answers calls recorded by an earlier attempt, and labels requests with their role
    and with the task as their session.
    """

    __slots__ = (
        "_call_ids",
        "_count",
        "_leased",
        "_llm",
        "_on_call",
        "_recorder",
        "_saved",
        "_services",
        "fenced",
        "finish_reason",
        "model",
        "replayed",
        "task",
        "timer",
        "tries",
        "usage",
        "waited",
    )

    def __init__(
        self,
        llm: LLM,
        task: Task,
        on_call: OnCall | None,
        services: Mapping[str, ConnectedService] = NO_SERVICES,
        *,
        record: bool = False,
    ) -> None:
        self._llm = llm
        self.task = task
        self._saved = RecordedCalls(task.calls) if task.calls else None
        self._on_call = on_call
        self._services = services
        self._leased: LeasedServices | None = None
        self._recorder = CallRecorder(task) if record else None
        self._count = 0
        self.usage = Usage()
        self.model = ""
        self.finish_reason = ""
        self.timer: TurnTimer | None = None
        self.fenced = False  # whether a newer copy of the task exists
        self.waited = 0.0
        self.tries = 0
        self.replayed: list[int] = []
        self._call_ids: set[str] | None = None  # of all turns so far

    def chat(self, request: ChatRequest) -> "CoroutineType[Any, Any, ChatReply]":
        """Return the recorded reply to a chat request, or make the call."""
        check_messages(request.messages, "messages")
        return self._ask(self._llm.chat, request, ChatReply)

    def embed(self, request: EmbedRequest) -> "CoroutineType[Any, Any, EmbedReply]":
        """Return the recorded reply to an embedding request, or make the call."""
        return self._ask(self._llm.embed, request, EmbedReply)

    async def close(self) -> None:
        """Do nothing: the client belongs to the peer."""

    def service(self, name: str) -> "RecordedService | LeasedService":
        """Return a service, as the agent uses it in this turn.

        Raises:
            CallError: if the run has no such service.
        """
        service = self._services.get(name)
        if service is None:
            known = ", ".join(["llm", *self._services])
            raise CallError(f"there is no service {name!r}; the run has: {known}")
        return self._leases()[name] if service.policy == "stateful" else RecordedService(name, service, self)

    async def acquire(self, specs: Mapping[str, Sequence[Any]]) -> dict[str, tuple[LeaseHandle, ...]]:
        """Acquire leases of several services; see `Services.acquire`."""
        return await self._leases().acquire(specs)

    def execution(self, member: str) -> Execution:
        """Return how this turn was made, by `member`."""
        return Execution(member, round(self.waited, 6), self.tries, tuple(self.replayed))

    def leases(self) -> tuple[TurnLeases, ...]:
        """Return the leases that this turn leaves with its task."""
        return keep_leases(self.task, self._leased)

    def model_calls(self, message: Mapping[str, Any] | None) -> tuple[ModelCall, ...]:
        """Return the calls of the model that this turn has made; `message` is the turn's."""
        return self._recorder.calls(message) if self._recorder is not None else ()

    def number(self) -> int:
        """Return the number of the next call of this turn."""
        self._count += 1
        return self._count - 1

    def saved(self, digest: bytes) -> bytes | None:
        """Return and remove the recorded reply to a call, or None."""
        return self._saved.pop(digest) if self._saved is not None else None

    def record(self, call: SavedCall | None) -> None:
        """Write a finished call to the journal, if there is one and the call can be encoded."""
        if call is not None and self._on_call is not None:
            self._on_call(self.task.header, call)

    async def outside(self, call: Callable[[], Awaitable[T]], limiter: ServiceLimiter | None = None) -> T:
        """Call a service, within its limits; the time does not count for that of the turn."""
        self.task.forget_input()
        if self.timer is not None:
            self.timer.pause()
        try:
            return await (call() if limiter is None else self._limited(call, limiter))
        finally:
            if self.timer is not None:
                self.timer.resume()

    def _leases(self) -> LeasedServices:
        if self._leased is None:
            self._leased = LeasedServices(self._services, self)
        return self._leased

    async def _limited(self, call: Callable[[], Awaitable[T]], limiter: ServiceLimiter) -> T:
        clock = time.perf_counter()
        await limiter.take(self.task.next_role, _ONE_CALL)
        began = time.perf_counter()
        self.waited += began - clock
        try:
            result = await call()
            limiter.answered(time.perf_counter() - began, 0)
            return result
        finally:
            limiter.end(_ONE_CALL, _ONE_CALL)

    async def _ask(
        self, ask: Callable[[Request], Awaitable[Reply]], request: Request, kind: type[Reply]
    ) -> Reply:
        number, request = self.number(), self._with_session(request)
        recorder = self._recorder
        recorded = recorder.begin(request) if recorder is not None else -1
        digest = digest_of(request) if self._saved is not None or self._on_call is not None else b""
        saved = self.saved(digest)
        if saved is not None:
            reply = msgspec.msgpack.decode(saved, type=kind)
            self.replayed.append(number)
        else:
            try:
                reply = await self._call(ask, request)
            except LLMError as error:
                if recorder is not None:
                    recorder.failed(recorded, error)
                raise
            self.record(save(digest, reply))
        if recorder is not None:
            recorder.answered(recorded, reply)
        self.usage += reply.usage
        self.model = reply.model
        if isinstance(reply, ChatReply):
            self.finish_reason = reply.finish_reason
            if reply.tool_calls:
                reply = self._with_ids(reply)
        return reply

    async def _call(self, ask: Callable[[Request], Awaitable[Reply]], request: Request) -> Reply:
        self.task.forget_input()
        clock = time.perf_counter()
        if self.timer is not None:
            self.timer.pause()
        try:
            reply = await ask(request)
        except LLMError as error:
            if isinstance(error.usage, Usage):
                self.usage += error.usage
            raise
        finally:
            if self.timer is not None:
                self.timer.resume()
        self.tries += reply.tries
        self.waited += max(0.0, time.perf_counter() - clock - reply.seconds)
        return reply

    def _with_ids(self, reply: ChatReply) -> ChatReply:
        """Return the reply with unique ids of its tool calls."""
        if self._call_ids is None:
            self._call_ids = call_ids(self.task)
        calls = with_ids(reply.tool_calls, self.task.header.hop, self._call_ids)
        if calls == reply.tool_calls:
            return reply
        message = {**reply.message, "tool_calls": calls}
        return msgspec.structs.replace(reply, tool_calls=calls, message=message)

    def _with_session(self, request: Request) -> Request:
        if request.session and request.role:
            return request
        return msgspec.structs.replace(
            request,
            session=request.session or str(self.task.id),
            role=request.role or self.task.next_role,
        )


class RecordedService:
    """A service whose calls need no lease, as an agent uses it in one turn."""

    def __init__(self, name: str, service: ConnectedService, calls: TurnCalls) -> None:
        self._name = name
        self._client: Any = service.client
        self._limiter = service.limiter
        self._replays = service.policy == "replay"
        self._calls = calls

    async def call(self, request: Any) -> Any:
        """Return the recorded reply to a request, or make the call. Both are JSON values.

        Raises:
            CallError: if the service refuses or fails the call.
        """
        calls = self._calls
        number = calls.number()
        digest = digest_of((calls.task.next_role, request), self._name) if self._replays else b""
        saved = calls.saved(digest)
        if saved is not None:
            calls.replayed.append(number)
            return _decode(saved)
        reply = await calls.outside(lambda: self._client.call(request), self._limiter)
        calls.tries += 1
        calls.record(save(digest, reply))
        return reply
