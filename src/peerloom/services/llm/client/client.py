"""A client of one service: any number of replicas of one model, called from one peer's event loop.

Each try of a call takes from the meter (limits, budget), goes to the replica that the router picks, and is
settled. What may pass is tried again, elsewhere if there is another replica; a limit is waited out by all.
When no replica answers, calls wait and one of them tries now and then: a service that is away makes the run
stand still and fails no task, unless there is another service to turn to. A request that a replica refuses as
it would the whole run, while it answers others, fails alone.
"""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from types import CoroutineType
from typing import Any, TypeVar

import msgspec

from peerloom.errors import LLMDenied, LLMError
from peerloom.services.llm.base import Backend, ChatReply, ChatRequest, EmbedReply, EmbedRequest
from peerloom.services.llm.client.hedge import Hedge, Hedging
from peerloom.services.llm.client.replicas import Dial, Failed, Replicas
from peerloom.services.llm.client.routing import Routing
from peerloom.services.llm.limits.quota_client import QuotaClient
from peerloom.services.llm.limits.service_quota import Limits
from peerloom.services.llm.retry import Retry, Retryable, Tries
from peerloom.services.llm.usage.amounts import Amount
from peerloom.services.llm.usage.estimates import Estimates
from peerloom.services.llm.usage.prices import Price, Prices
from peerloom.services.llm.usage.settling import charged, replaced, total
from peerloom.services.llm.wire_format.finish_reasons import KNOWN
from peerloom.task import Usage

Request = TypeVar("Request", ChatRequest, EmbedRequest)
Reply = TypeVar("Reply", ChatReply, EmbedReply)
Ask = Callable[[Request, int, Backend], Awaitable[Reply]]
"""Puts a request to a backend; the number counts the tries."""
Try = Callable[[Backend], Awaitable[Reply]]
Sleep = Callable[[float], Awaitable[None]]

_REFUSED = Amount(requests=1.0)  # what a try takes that comes to nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicatedClientSpec:
    """A service as its clients know it; makes them. Picklable.

    Args:
        service: its name.
        model: the model's name.
        replicas: their names; base URLs, normally.
        dial: reaches one of them.
        retry: how persistent to be.
        routing: how calls are spread.
        hedge: when a second request is sent beside a slow one; None is never.
        price: what tokens cost; None if that is not known.
        limits: what the provider allows the whole run.
        limited: whether calls are metered from the start.
        patient: whether calls wait for a service that is away, or fail.
    """

    service: str = "llm"
    model: str
    replicas: tuple[str, ...]
    dial: Dial
    retry: Retry = field(default_factory=Retry)
    routing: Routing = field(default_factory=Routing)
    hedge: Hedge | None = None
    price: Price | None = None
    limits: Limits = field(default_factory=Limits)
    limited: bool = False
    patient: bool = True

    @property
    def fleets(self) -> "tuple[ReplicatedClientSpec, ...]":
        """The services behind it: itself."""
        return (self,)

    def metered(self, everything: bool) -> "ReplicatedClientSpec":
        """The same, with calls metered where that is needed, or everywhere."""
        return replace(self, limited=everything or self.limits.bounded)

    def priced(self, prices: Prices) -> "ReplicatedClientSpec":
        """The same, with what tokens cost: as `prices` say, else as the service knows itself."""
        found = prices.find(self.model, self.replicas[0] if self.replicas else "")
        return replace(self, price=found or self.price)

    def connect(self, desk: QuotaClient | None = None) -> "ReplicatedClient":
        """A client for the running event loop; `desk` is where it says what it uses."""
        return ReplicatedClient(self, desk or QuotaClient())


class ReplicatedClient:
    """Calls one service; see `ReplicatedClientSpec`. `sleep` waits between tries, and is there for tests."""

    def __init__(
        self, spec: ReplicatedClientSpec, desk: QuotaClient, *, sleep: Sleep = asyncio.sleep
    ) -> None:
        self._spec = spec
        self._sleep = sleep
        self._clock = desk.clock
        self._what = f"{spec.model} at {', '.join(spec.replicas[:3])}"
        self._meter = desk.meter(spec.service, limited=spec.limited, moved=self._move)
        self._replicas = Replicas(
            self._what,
            spec.replicas,
            spec.dial,
            spec.routing,
            clock=self._clock,
            told=self._tell,
            patient=spec.patient,
        )
        self._estimates = Estimates(spec.price)
        self._hedging = Hedging(spec.hedge) if spec.hedge is not None else None
        self._say_once = desk.say_once
        self._answered_at = -math.inf
        self._retrying = 0  # calls that have failed and are tried again
        self._pausing: deque[tuple[float, asyncio.Task[None]]] = deque()  # refused calls, and since when

    def chat(self, request: ChatRequest) -> "CoroutineType[Any, Any, ChatReply]":
        """Answer one request.

        Raises:
            LLMUnavailable: when attempts or time are used up, or it is away and not to be waited for.
            LLMDenied: if it refuses whatever is asked, and is not to be waited for; or only this request.
            LLMRejected: if the server refuses the request.
            ContextExceeded: if the prompt is too long for the model.
            ContentFiltered: if the provider withholds the reply.
        """
        return self._call(request, _chat)

    def embed(self, request: EmbedRequest) -> "CoroutineType[Any, Any, EmbedReply]":
        """Turn texts into vectors; errors as `chat`."""
        return self._call(request, _embed)

    async def close(self) -> None:
        """Close all connections."""
        await self._replicas.close()

    def _tell(self, why: str, denied: bool) -> None:
        self._meter.state(why, denied=denied)

    def _move(self, names: Sequence[str]) -> None:
        self._replicas.move(names)

    async def _call(self, request: Request, ask: Ask[Request, Reply]) -> Reply:
        key = self._spec.routing.key(request.session, request.role)
        began, number = self._clock(), 0
        # As good as no memory for what nearly all calls do without: many thousands wait here at once.
        avoid: tuple[str, ...] = ()
        denied: dict[str, float] | None = None
        tries: Tries | None = None
        discarded: Usage | None = None
        try:
            while True:
                if not self._replicas.well:
                    with self._idle():
                        away = await self._replicas.available()
                    began += away
                    if tries is not None:
                        tries.excuse(away)
                need: Amount | None = None
                if self._meter.limited:
                    queued = self._clock()
                    need = self._estimates.need(request)
                    await self._meter.take(request.role, need, first=number > 0)
                    began += self._clock() - queued
                    if tries is not None:
                        tries.excuse(self._clock() - queued)
                else:
                    self._meter.begin()
                sent = self._clock()
                try:
                    reply = await self._try(request, partial(ask, request, number), key, avoid, need)
                    return reply if discarded is None else replaced(reply, reply.usage + discarded)
                except LLMError as error:
                    error.usage = total(error.usage, discarded)
                    raise
                except Failed as failed:
                    if tries is None:
                        tries = Tries(self._spec.retry, self._what, began, self._clock)
                        self._retrying += 1
                    number += 1
                    avoid = avoid if failed.name in avoid else (*avoid, failed.name)
                    discarded = total(discarded, self._priced(failed.failure.usage))
                    with charged(discarded):
                        if isinstance(failed.__cause__, LLMDenied):
                            denied = denied or {}
                            self._check_denial(failed.name, failed.__cause__, denied)
                        await self._back_off(tries, failed.failure, self._clock() - sent)
        finally:
            self._retrying -= tries is not None

    def _check_denial(self, name: str, denial: LLMDenied, denied: dict[str, float]) -> None:
        """Raise it if the replica has denied this call before, and answered later ones: it means this one."""
        if name in denied and self._replicas.answered_since(name, denied[name]):
            raise denial
        denied[name] = self._clock()

    async def _back_off(self, tries: Tries, failure: Retryable, seconds: float) -> None:
        """Wait before the next try, after one that took so many seconds.

        A refused call waits here only while the driver does not decide when attempts may begin. The wait does
        not count if nobody else was answered meanwhile, nor if no server took the request in.
        """
        if failure.notice:
            self._say_once(f"{self._spec.service}: {failure.notice}")
        began = self._clock()
        wait = tries.wait(failure, self._answered_at, others_fail=self._retrying > 1)
        if failure.limit:
            self._meter.refused(tries.policy.believed(failure.retry_after), str(failure), seconds)
            if self._meter.throttled:
                wait = 0.0
            with self._idle(), self._meter.pause(wait):
                await self._pause(wait)
        else:
            with self._idle():
                await self._sleep(wait)
        refused = failure.limit and self._answered_at < began
        if self._spec.patient and (refused or not failure.taken):
            tries.excuse(self._clock() - began)

    async def _pause(self, seconds: float) -> None:
        """Wait, but only until a call that began later is answered: then the service accepts calls again."""
        while self._pausing and self._pausing[0][1].done():
            self._pausing.popleft()
        async with asyncio.TaskGroup() as group:
            sleeping = group.create_task(_wait(self._sleep(seconds)))
            self._pausing.append((self._clock(), sleeping))

    def _wake(self, began: float) -> None:
        """Let one call go that was refused before then: one that began at that time was answered."""
        pausing = self._pausing
        while pausing and (pausing[0][1].done() or pausing[0][0] < began):
            _, sleeping = pausing.popleft()
            if sleeping.cancel():
                return

    @contextmanager
    def _idle(self) -> Generator[None]:
        self._meter.idle += 1
        try:
            yield
        finally:
            self._meter.idle -= 1

    async def _try(
        self, request: Request, attempt: Try[Reply], key: str, avoid: Collection[str], need: Amount | None
    ) -> Reply:
        """Make one try and settle what it took of the `need` that is reserved for it."""
        took = _REFUSED
        began = self._clock()
        try:
            delay = self._hedging.delay if self._hedging is not None else None
            name = self._replicas.choose(key, avoid)
            if delay is None:
                reply = await self._replicas.ask(name, attempt)
            else:
                reply = await self._hedged(name, attempt, avoid, delay, need)
            if self._spec.price is not None:
                reply = replaced(reply, self._priced(reply.usage) or reply.usage)
            usage = reply.usage
            known = usage.prompt > 0 and (usage.completion > 0 or not _says_something(reply))
            took = self._took(usage, need, known)
            self._learn(request, reply, known, self._clock() - began)
            if self._pausing:
                self._wake(began)
            return reply
        except asyncio.CancelledError:
            took = need or took  # it may well be paid
            raise
        except (Failed, LLMError) as error:
            usage = self._priced(error.failure.usage if isinstance(error, Failed) else error.usage)
            if usage is not None:  # it was answered, and is paid
                took = self._took(usage, need, usage.prompt > 0)
                if isinstance(error, LLMError):
                    error.usage = usage
            raise
        finally:
            self._meter.end(need, took)

    def _priced(self, usage: Usage | None) -> Usage | None:
        if self._spec.price is None or usage is None:
            return usage
        return msgspec.structs.replace(usage, usd=self._spec.price.cost(usage))

    def _took(self, usage: Usage, need: Amount | None, known: bool) -> Amount:
        """The amount that an answered call is charged; of what is unknown, all that was reserved."""
        took = Amount(1.0, 1.0, usage.prompt + usage.completion, usage.usd)
        if known:
            return took
        self._say_once(
            f"{self._spec.service} does not say how many tokens a reply took; "
            "limits and budget count what was reserved for it, and rows what is known"
        )
        return (
            took if need is None else Amount(1.0, 1.0, max(took.tokens, need.tokens), max(took.usd, need.usd))
        )

    def _learn(self, request: Request, reply: Reply, known: bool, seconds: float) -> None:
        """Take in what there is to learn from a reply, and how long it took with a second request, if any."""
        self._answered_at = self._clock()
        self._meter.answered(reply.seconds, reply.usage.completion)
        if known and self._meter.limited:
            self._estimates.learn(request, reply.usage)
        if isinstance(reply, ChatReply) and reply.finish_reason not in KNOWN:
            self._say_once(
                f"{self._spec.service} ended a reply with the unknown finish_reason {reply.finish_reason!r}; "
                "such replies are taken as whole"
            )
        if self._hedging is not None:
            self._hedging.took(seconds)

    async def _hedged(
        self, name: str, attempt: Try[Reply], avoid: Collection[str], delay: float, need: Amount | None
    ) -> Reply:
        """The first reply of two requests, the second one sent elsewhere after `delay` seconds."""
        assert self._hedging is not None
        outcome: Reply | Exception
        async with asyncio.TaskGroup() as group:
            pending = {group.create_task(_outcome(self._replicas.ask(name, attempt)))}
            done, pending = await asyncio.wait(pending, timeout=delay)
            if not done and self._meter.try_take(need):
                self._hedging.sent()
                pending.add(group.create_task(self._second(attempt, {*avoid, name}, need)))
            if not done:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            outcome = done.pop().result()
            if isinstance(outcome, Failed):  # in a way that does not say what becomes of the other
                for other in (*done, *pending):
                    outcome = await other
            for other in pending:
                other.cancel()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _second(
        self, attempt: Try[Reply], avoid: Collection[str], need: Amount | None
    ) -> Reply | Exception:
        took = need or _REFUSED
        try:
            outcome = await _outcome(self._elsewhere(attempt, avoid))
            if isinstance(outcome, Exception):
                took = _REFUSED
            else:
                usage = self._priced(outcome.usage) or outcome.usage
                took = self._took(usage, need, usage.prompt > 0)
            return outcome
        finally:
            self._meter.end(need, took)

    async def _elsewhere(self, attempt: Try[Reply], avoid: Collection[str]) -> Reply:
        return await self._replicas.ask(self._replicas.choose("", avoid), attempt)


def _says_something(reply: ChatReply | EmbedReply) -> bool:
    return isinstance(reply, ChatReply) and bool(reply.text or reply.reasoning or reply.tool_calls)


def _chat(request: ChatRequest, number: int, backend: Backend) -> Awaitable[ChatReply]:
    return backend.chat(request, number)


def _embed(request: EmbedRequest, number: int, backend: Backend) -> Awaitable[EmbedReply]:
    return backend.embed(request, number)


async def _wait(sleeping: Awaitable[None]) -> None:
    await sleeping


async def _outcome(asked: Awaitable[Reply]) -> Reply | Exception:
    try:
        return await asked
    except Exception as error:
        return error
