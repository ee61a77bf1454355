"""Send attempts to the replicas of one service, and report their outcomes to its router."""

import asyncio
import math
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import contextmanager, suppress

from peerloom.errors import LLMDenied, LLMError, LLMUnavailable
from peerloom.services.llm.base import Backend
from peerloom.services.llm.client.routing import ReplicaRouter, Routing
from peerloom.services.llm.retry import Retryable

BackendFactory = Callable[[str], Backend]
"""Creates the backend of the replica of that name (usually its base URL) for the running event loop."""


class Replicas:
    """The replicas of one service, for one client.

    Args:
        target: the name of the service, for messages.
        names: the names of the replicas.
        backend_factory: creates the backend of a replica.
        routing: how calls are distributed.
        clock: returns seconds.
        on_down: called with the reason when no replica answers, and whether the service denies this run; with
            an empty reason when one answers again.
        patient: wait while no replica answers instead of raising `LLMUnavailable`.
    """

    def __init__(
        self,
        target: str,
        names: Sequence[str],
        backend_factory: BackendFactory,
        routing: Routing,
        *,
        clock: Callable[[], float],
        on_down: Callable[[str, bool], None],
        patient: bool,
    ) -> None:
        self._target = target
        self._backend_factory = backend_factory
        self._clock = clock
        self._on_down = on_down
        self._patient = patient
        self._router = ReplicaRouter(routing, names)
        self._backends = {name: backend_factory(name) for name in names}  # with those of removed replicas
        self._changed = asyncio.Event()
        self._down = ""  # the reason why no replica answers
        self._answered: dict[str, float] = {}  # when the latest answered call of each replica began
        self._closed = False

    @property
    def all_live(self) -> bool:
        """Whether all replicas are in use."""
        return self._router.all_live

    def move(self, names: Sequence[str]) -> None:
        """Replace the replicas; outstanding calls to removed ones are still answered."""
        for name in names:
            if name not in self._backends:
                self._backends[name] = self._backend_factory(name)
        self._router.update(names)
        if not names:
            self._report_down("it has no replicas at present", denied=False)
        self._wake()

    async def available(self) -> float:
        """Probe an ejected replica if one is due, wait until one is in use, and return the seconds waited.

        Raises:
            LLMUnavailable: if no replica is in use and calls do not wait, or if the client is closed.
        """
        began = self._clock()
        if self._router.live:
            await self._probe()
        while not self._router.live:
            if self._closed:
                raise self._closed_error()
            if await self._probe():
                continue
            if not self._patient:
                raise LLMUnavailable(f"{self._target} is away: {self._down or 'it has no replicas'}")
            await self._wait()
        return self._clock() - began

    @contextmanager
    def attempt(self, key: str, avoid: Collection[str] = ()) -> Generator[Backend]:
        """Choose the replica for an attempt, provide its backend, and record the outcome.

        Args:
            key: the affinity key of the call.
            avoid: replicas that already failed this call.

        Raises:
            Retryable: for a transient failure, or if the replica denies the request, or none is in use.
            LLMError: for a permanent failure.
        """
        if self._closed:
            raise self._closed_error()
        name = self._router.pick(key, avoid)
        if name is None:
            raise Retryable("no replica is in use", taken=False)
        backend = self._backends[name]
        self._router.began(name)
        began = self._clock()
        try:
            yield backend
        except Retryable as failure:
            if self._closed:
                raise self._closed_error() from failure
            failure.replica = name
            self._failed(name, failure)
            raise
        except LLMDenied as error:
            self._router.failed(name, self._clock(), reached=False)
            self._report_down(str(error), denied=True)
            if not self._patient and not self._router.live:
                raise
            raise Retryable(str(error), taken=False, replica=name) from error
        except LLMError:
            self._succeeded(name, began)
            raise
        else:
            self._succeeded(name, began)
        finally:
            self._router.ended(name)

    def answered_since(self, name: str, then: float) -> bool:
        """Return whether a replica has answered a call that began later than `then`."""
        return self._answered.get(name, -math.inf) > then

    async def close(self) -> None:
        """Close all connections, and end outstanding and waiting calls."""
        self._closed = True
        self._wake()
        for backend in self._backends.values():
            await backend.close()

    def _closed_error(self) -> LLMUnavailable:
        return LLMUnavailable(f"the client of {self._target} is closed")

    def _succeeded(self, name: str, began: float) -> None:
        self._answered[name] = max(began, self._answered.get(name, began))
        was_down = not self._router.live
        self._router.succeeded(name)
        if was_down:
            self._wake()
        if self._down:
            self._down = ""
            self._on_down("", False)

    def _failed(self, name: str, failure: Retryable) -> None:
        if failure.limit and (not failure.overload or self._router.single):
            return  # the replica is reachable, and no other has more capacity
        self._router.failed(name, self._clock(), reached=failure.taken)
        self._report_down(str(failure), denied=False)

    def _report_down(self, why: str, *, denied: bool) -> None:
        if not self._router.live:
            self._down = why
            self._on_down(why, denied)

    async def _probe(self) -> bool:
        """Probe an ejected replica that is due; return False if there is none."""
        name = self._router.due(self._clock())
        if name is None or self._closed:
            return False
        self._router.probe_began(name)
        healthy = False
        try:
            healthy = await self._backends[name].healthy()
        finally:
            self._router.probe_ended(name, self._clock(), healthy=healthy)
            self._wake()  # waiting calls compute the time of the next probe
        return True

    async def _wait(self) -> None:
        seconds = self._router.until_due(self._clock())
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.01, seconds) if seconds < math.inf else None):
                await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
