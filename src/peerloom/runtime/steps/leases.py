"""Let an agent use the leases of its task, and record the steps on them."""

import asyncio
import hashlib
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from peerloom.errors import CallError
from peerloom.protocol.leases.held import HeldLeases
from peerloom.protocol.leases.holder import Exchange, Fenced, LeaseRefused, Message
from peerloom.protocol.leases.messages import Acquire, Reply, Step
from peerloom.services.base import ConnectedService
from peerloom.task import SavedCall, Task, TurnLeases

if TYPE_CHECKING:
    from peerloom.runtime.steps.turn_calls import TurnCalls

T = TypeVar("T")

DIGEST_BYTES = 16

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class LeasedServices:
    """The services whose resources tasks hold, as an agent uses them in one turn.

    The requests of one task follow each other, also those to several services.
    """

    def __init__(self, services: Mapping[str, ConnectedService], calls: "TurnCalls") -> None:
        self.held = HeldLeases(calls.task.header)
        self._calls = calls
        self._clients = {name: each for name, each in services.items() if each.policy == "stateful"}
        self._by_name = {name: LeasedService(name, self) for name in self._clients}
        self._lock = asyncio.Lock()
        for name in self._clients:
            _add_holder(self.held, name, calls.task)

    def __getitem__(self, name: str) -> "LeasedService":
        return self._by_name[name]

    async def acquire(self, specs: Mapping[str, Sequence[Any]]) -> "dict[str, tuple[LeaseHandle, ...]]":
        """See `Services.acquire`."""
        for name, of_service in specs.items():
            if isinstance(of_service, str | Mapping):
                raise CallError(f"the specs of {name!r} must be a list, with one for each lease")
            self._check_number(name, len(of_service))
        encoded = {name: [_encode(spec) for spec in of_service] for name, of_service in specs.items()}
        async with self._lock:
            if not self.held.is_empty:
                raise CallError("the task holds leases already: acquire all at once, or release them first")
            await self._exchange(self.held.acquire(encoded))
        return {name: self[name].leases for name in specs}

    async def run(self, exchange: Exchange[T]) -> T:
        """Carry out an exchange with the services."""
        async with self._lock:
            return await self._exchange(exchange)

    async def step(self, service: str, slot: int, request: Any) -> Any:
        """Make a call on one lease; see `LeaseHandle.call`."""
        calls = self._calls
        number, data = calls.number(), _encode(request)
        digest = hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()
        reply, step = await self.run(self.held.holders[service].step(slot, digest, data))
        if step is None:
            calls.replayed.append(number)
        else:
            calls.record(SavedCall(b"", b"", service, step))
        return _decode(reply)

    def _check_number(self, name: str, count: int) -> None:
        if name not in self._clients:
            raise CallError(f"services.{name} has no leases; those that have: {', '.join(self._clients)}")
        client: Any = self._clients[name].client
        if client.per_task is not None and count > client.per_task:
            raise CallError(f"{count} leases of {name!r}, but services.{name}.per_task={client.per_task}")

    async def _exchange(self, exchange: Exchange[T]) -> T:
        try:
            message = next(exchange)
            while True:
                reply = await self._send(message)
                message = exchange.send(reply)
        except StopIteration as done:
            return done.value
        except Fenced:
            self._calls.fenced = True  # even if the agent catches it
            raise
        except LeaseRefused as error:
            raise CallError(f"service {error.service!r}: {error}") from None
        finally:
            exchange.close()

    async def _send(self, message: Message) -> Reply | None:
        service = self._clients[message.service]
        client: Any = service.client
        is_step = isinstance(message.request, Step)
        clock = time.perf_counter()
        try:
            return await self._calls.outside(
                lambda: client.send(message.request, message.place), service.limiter if is_step else None
            )
        finally:
            self._calls.tries += 1
            if isinstance(message.request, Acquire):
                self._calls.waited += time.perf_counter() - clock


class LeasedService:
    """A service whose resources tasks hold, as an agent uses it in one turn."""

    def __init__(self, name: str, services: LeasedServices) -> None:
        self._name = name
        self._services = services
        self._first = asyncio.Lock()

    @property
    def leases(self) -> "tuple[LeaseHandle, ...]":
        """The leases that the task holds."""
        held = self._services.held.holders[self._name].held
        count = len(held.specs) if held is not None else 0
        return tuple(LeaseHandle(self._services, self._name, slot) for slot in range(count))

    async def acquire(self, *specs: Any) -> "tuple[LeaseHandle, ...]":
        """Acquire a lease for each spec, all together; wait until enough of them are free.

        They stay with the task, in this turn and later ones, until they are released or the task ends. Each
        starts from the state that its spec (a JSON value) describes.

        Raises:
            CallError: if the task holds leases already, or the service never has this number of them.
        """
        return (await self._services.acquire({self._name: specs}))[self._name]

    async def release(self) -> None:
        """Release all leases of this service that the task holds."""
        await self._services.run(self._services.held.holders[self._name].release())

    async def call(self, request: Any) -> Any:
        """Make a call on the task's only lease; without one, acquire one with the spec None.

        Raises:
            CallError: as `LeaseHandle.call`; if the task holds several leases.
        """
        async with self._first:
            leases = self.leases or await self.acquire(None)
        if len(leases) != 1:
            raise CallError(f"the task holds {len(leases)} leases of {self._name!r}: call one of `leases`")
        return await leases[0].call(request)


class LeaseHandle:
    """A resource that a task holds."""

    def __init__(self, services: LeasedServices, service: str, slot: int) -> None:
        self._services = services
        self._service = service
        self._slot = slot

    async def call(self, request: Any) -> Any:
        """Make a call on the resource, and return the reply. Both are JSON values.

        After a process has died, a recorded call is answered from the journal, and the state is rebuilt by
        the recorded calls.

        Raises:
            CallError: if the service refuses or fails the call; the state is unchanged.
        """
        return await self._services.step(self._service, self._slot, request)


def keep_leases(task: Task, services: LeasedServices | None) -> tuple[TurnLeases, ...]:
    """Return the leases that a turn leaves with its task; `services` is None if it has used none of them."""
    if services is None:
        last = task.last
        return tuple([msgspec.structs.replace(leases, steps=[]) for leases in last.leases]) if last else ()
    kept = [
        TurnLeases(name, held, [step for step in holder.made if step.name == held.name])
        for name, holder in services.held.holders.items()
        if (held := holder.held) is not None
    ]
    return tuple(kept)


def _add_holder(leases: HeldLeases, service: str, task: Task) -> None:
    calls = [call.step for call in task.calls if call.step is not None and call.service == service]
    earlier = [leases for turn in task.turns for leases in turn.leases if leases.service == service]
    last = task.last
    held = next((leases.held for leases in last.leases if leases.service == service), None) if last else None
    steps = [step for leases in earlier for step in leases.steps if held and step.name == held.name]
    leases.add(service, held, steps, calls)
