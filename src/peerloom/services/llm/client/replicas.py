"""The replicas of one service: the router's choices carried out, and what becomes of them told to it."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from typing import TypeVar

from peerloom.errors import LLMDenied, LLMError, LLMUnavailable
from peerloom.services.llm.base import Backend
from peerloom.services.llm.client.routing import ReplicaRouter, Routing
from peerloom.services.llm.retry import Retryable

Reply = TypeVar("Reply")
Dial = Callable[[str], Backend]
"""Makes what reaches the replica of that name (its base URL, normally), for the running event loop."""


class Replicas:
    """Of one service, for one client.

    Args:
        what: what is called, for messages.
        names: the replicas there are.
        dial: reaches one.
        routing: how calls are spread.
        clock: seconds.
        told: hears why none of them answers, and whether that is since the service refuses this run; with the
            empty string that one does again.
        patient: wait while none answers; else `LLMUnavailable` is raised.
    """

    def __init__(
        self,
        what: str,
        names: Sequence[str],
        dial: Dial,
        routing: Routing,
        *,
        clock: Callable[[], float],
        told: Callable[[str, bool], None],
        patient: bool,
    ) -> None:
        self._what = what
        self._dial = dial
        self._clock = clock
        self._told = told
        self._patient = patient
        self._router = ReplicaRouter(routing, names)
        self._backends = {name: dial(name) for name in names}
        self._left: list[Backend] = []  # gone, but perhaps still answering a call
        self._changed = asyncio.Event()
        self._why = ""
        self._answered: dict[str, float] = {}  # when the last one began of the calls that it has answered
        self._closed = False

    @property
    def well(self) -> bool:
        """Whether all are in use."""
        return self._router.all_live

    def move(self, names: Sequence[str]) -> None:
        """These are the replicas from now on; calls under way to others are still answered."""
        for name in [name for name in self._backends if name not in names]:
            self._left.append(self._backends.pop(name))
        for name in names:
            if name not in self._backends:
                self._backends[name] = self._dial(name)
        self._router.update(names)
        if not names:
            self._tell("it has no replicas at present", denied=False)
        self._wake()

    async def available(self) -> float:
        """Try a replica that is ejected, if it is time, and wait until one is in use; the seconds that took.

        Raises:
            LLMUnavailable: if none is in use, and calls are not to wait; or if the client is closed.
        """
        began = self._clock()
        if self._router.live:
            await self._try_one()
        while not self._router.live:
            if self._closed:
                raise self._over()
            if await self._try_one():
                continue
            if not self._patient:
                raise LLMUnavailable(f"{self._what} is away: {self._why or 'it has no replicas'}")
            await self._wait()
        return self._clock() - began

    def choose(self, key: str, avoid: Collection[str] = ()) -> str:
        """The replica for a call.

        Args:
            key: what the call's affinity hangs on.
            avoid: replicas that failed this call already.

        Raises:
            Failed: if none is in use.
        """
        name = self._router.pick(key, avoid)
        if name is None:
            raise Failed("", Retryable("no replica is in use", taken=False))
        return name

    async def ask(self, name: str, attempt: Callable[[Backend], Awaitable[Reply]]) -> Reply:
        """Have a replica try to answer.

        Raises:
            Failed: if it failed in a way that may pass.
            LLMError: if it failed for good.
        """
        if self._closed:
            raise self._over()
        backend = self._backends.get(name)
        if backend is None:  # it was chosen a moment ago, and has left since
            raise Failed(name, Retryable("the replica is gone", taken=False))
        self._router.began(name)
        began = self._clock()
        try:
            reply = await attempt(backend)
        except Retryable as failure:
            if self._closed:
                raise self._over() from failure
            self._failed(name, failure)
            raise Failed(name, failure) from failure
        except LLMDenied as error:
            self._router.failed(name, self._clock(), reached=False)
            self._tell(str(error), denied=True)
            if not self._patient and not self._router.live:
                raise
            raise Failed(name, Retryable(str(error), taken=False)) from error
        except LLMError:
            self._succeeded(name, began)
            raise
        finally:
            self._router.ended(name)
        self._succeeded(name, began)
        return reply

    def answered_since(self, name: str, then: float) -> bool:
        """Whether that replica has answered a call that began later than `then`."""
        return self._answered.get(name, -math.inf) > then

    async def close(self) -> None:
        """Close all connections; calls under way end, also those that wait."""
        self._closed = True
        self._wake()
        for backend in (*self._backends.values(), *self._left):
            await backend.close()

    def _over(self) -> LLMUnavailable:
        return LLMUnavailable(f"the client of {self._what} is closed")

    def _succeeded(self, name: str, began: float) -> None:
        self._answered[name] = max(began, self._answered.get(name, began))
        waited_for = not self._router.live
        self._router.succeeded(name)
        if waited_for:
            self._wake()
        if self._why:
            self._why = ""
            self._told("", False)

    def _failed(self, name: str, failure: Retryable) -> None:
        if failure.limit and (not failure.overload or self._router.alone):
            return  # it is there, and no other could take more
        self._router.failed(name, self._clock(), reached=failure.taken)
        self._tell(str(failure), denied=False)

    def _tell(self, why: str, *, denied: bool) -> None:
        if not self._router.live:
            self._why = why
            self._told(why, denied)

    async def _try_one(self) -> bool:
        """Look whether a replica whose time it is answers again; False if there is none."""
        name = self._router.due(self._clock())
        if name is None or self._closed:
            return False
        self._router.trying(name)
        well = False
        try:
            well = await self._backends[name].healthy()
        finally:
            self._router.tried(name, self._clock(), well=well)
            self._wake()  # whoever waits does so for the next trial, if not for this one
        return True

    async def _wait(self) -> None:
        seconds = self._router.until_due(self._clock())
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.01, seconds) if seconds < math.inf else None):
                await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class Failed(Exception):
    """A replica has not answered a call; its name, and how it failed."""

    def __init__(self, name: str, failure: Retryable) -> None:
        super().__init__(str(failure))
        self.name = name
        self.failure = failure
