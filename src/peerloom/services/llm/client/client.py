"""Call one service: any number of replicas of one model, from one peer's event loop.

Each attempt of a call reserves quota (limits, budget) with the limiter, is sent to the replica that the
router chooses, and settles its reservation. Transient failures are retried, at another replica if there is
one; after a refusal for a rate limit all calls slow down. While no replica answers, calls wait and one of
them probes periodically, so an outage pauses the run and fails no task, unless the service has a fallback. If
a replica denies a request as it would deny the whole run, but answers other requests, only that call fails.
"""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from types import CoroutineType
from typing import Any

import msgspec

from peerloom.errors import LLMDenied, LLMError
from peerloom.services.llm.base import (
    Backend,
    ChatReply,
    ChatRequest,
    EmbedReply,
    EmbedRequest,
    Reply,
)
from peerloom.services.llm.client.hedge import Hedge, Hedging
from peerloom.services.llm.client.replicas import AttemptFailed, BackendFactory, Replicas
from peerloom.services.llm.client.routing import Routing
from peerloom.services.llm.limits.quota_client import QuotaClient
from peerloom.services.llm.limits.service_quota import Limits
from peerloom.services.llm.retry import Retry, Retryable, RetryState
from peerloom.services.llm.usage.amounts import Amount
from peerloom.services.llm.usage.estimates import Estimates
from peerloom.services.llm.usage.prices import Price, Prices
from peerloom.services.llm.usage.settling import charged, replaced, total
from peerloom.services.llm.wire_format.finish_reasons import KNOWN
from peerloom.task import Usage

Send = Callable[[int, Backend], Awaitable[Reply]]
"""Sends the request of a call to a backend; the number is that of the attempt."""
Attempt = Callable[[Backend], Awaitable[Reply]]
Sleep = Callable[[float], Awaitable[None]]

_FAILED = Amount(requests=1.0)  # the usage of a failed attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicatedClientSpec:
    """Creates clients of a service. Picklable.

    Args:
        service: the name of the service.
        model: the name of the model.
        replicas: the names of the replicas, usually base URLs.
        backend_factory: creates the backend of a replica.
        retry: the retry policy.
        routing: how calls are distributed.
        hedge: when a second request is sent for a slow call; None for never.
        price: the price of tokens; None if it is unknown.
        limits: the provider's limits for the whole run.
        limited: whether calls need quota from the start.
        patient: whether calls wait while the service is unavailable instead of failing.
    """

    service: str = "llm"
    model: str
    replicas: tuple[str, ...]
    backend_factory: BackendFactory
    retry: Retry = field(default_factory=Retry)
    routing: Routing = field(default_factory=Routing)
    hedge: Hedge | None = None
    price: Price | None = None
    limits: Limits = field(default_factory=Limits)
    limited: bool = False
    patient: bool = True

    @property
    def fleets(self) -> "tuple[ReplicatedClientSpec, ...]":
        """The services: this one."""
        return (self,)

    def with_limits(self, everything: bool) -> "ReplicatedClientSpec":
        """Return a copy that limits calls if the service has limits, or if `everything` is true."""
        return replace(self, limited=everything or self.limits.bounded)

    def with_prices(self, prices: Prices) -> "ReplicatedClientSpec":
        """Return a copy with the price of tokens from `prices`, or else the service's own price."""
        found = prices.find(self.model, self.replicas[0] if self.replicas else "")
        return replace(self, price=found or self.price)

    def connect(self, quota_client: QuotaClient | None = None) -> "ReplicatedClient":
        """Return a client for the running event loop; `quota_client` exchanges its usage and quota."""
        return ReplicatedClient(self, quota_client or QuotaClient())


class ReplicatedClient:
    """Calls one service; see `ReplicatedClientSpec`. `sleep` waits between attempts; tests replace it."""

    def __init__(
        self, spec: ReplicatedClientSpec, quota_client: QuotaClient, *, sleep: Sleep = asyncio.sleep
    ) -> None:
        self._spec = spec
        self._sleep = sleep
        self._clock = quota_client.clock
        self._target = f"{spec.model} at {', '.join(spec.replicas[:3])}"
        self._replicas = Replicas(
            self._target,
            spec.replicas,
            spec.backend_factory,
            spec.routing,
            clock=self._clock,
            on_down=self._set_down,
            patient=spec.patient,
        )
        self._limiter = quota_client.limiter(spec.service, limited=spec.limited, moved=self._replicas.move)
        self._estimates = Estimates(spec.price)
        self._hedging = Hedging(spec.hedge) if spec.hedge is not None else None
        self._notify_once = quota_client.notify_once
        self._answered_at = -math.inf
        self._retrying = 0  # calls that have failed and are retried
        self._pausing: deque[tuple[float, asyncio.Task[None]]] = deque()  # refused calls, and since when

    def chat(self, request: ChatRequest) -> "CoroutineType[Any, Any, ChatReply]":
        """Answer one request.

        Raises:
            LLMUnavailable: if attempts or time are used up, or if the service is unavailable and calls fail.
            LLMDenied: if the service denies all requests and calls fail, or denies only this request.
            LLMRejected: if the server refuses the request.
            ContextExceeded: if the prompt is too long for the model.
            ContentFiltered: if the provider withholds the reply.
        """
        return self._call(request, lambda number, backend: backend.chat(request, number))

    def embed(self, request: EmbedRequest) -> "CoroutineType[Any, Any, EmbedReply]":
        """Embed texts; raises the errors of `chat`."""
        return self._call(request, lambda number, backend: backend.embed(request, number))

    async def close(self) -> None:
        """Close all connections."""
        await self._replicas.close()

    def _set_down(self, why: str, denied: bool) -> None:
        self._limiter.set_down(why, denied=denied)

    async def _call(self, request: ChatRequest | EmbedRequest, send: Send[Reply]) -> Reply:
        key = self._spec.routing.key(request.session, request.role)
        began, number = self._clock(), 0
        # Created on the first failure, to save memory: many thousands of calls wait here at once.
        avoid: tuple[str, ...] = ()
        denied: dict[str, float] | None = None
        retries: RetryState | None = None
        discarded: Usage | None = None
        try:
            while True:
                if not self._replicas.all_live:
                    with self._idle():
                        away = await self._replicas.available()
                    began += away
                    if retries is not None:
                        retries.exclude(away)
                need: Amount | None = None
                if self._limiter.limited:
                    queued = self._clock()
                    need = self._estimates.need(request)
                    await self._limiter.take(request.role, need, first=number > 0)
                    began += self._clock() - queued
                    if retries is not None:
                        retries.exclude(self._clock() - queued)
                else:
                    self._limiter.begin()
                sent = self._clock()
                try:
                    reply = await self._attempt(request, partial(send, number), key, avoid, need)
                    return reply if discarded is None else replaced(reply, reply.usage + discarded)
                except LLMError as error:
                    error.usage = total(error.usage, discarded)
                    raise
                except AttemptFailed as failed:
                    if retries is None:
                        retries = RetryState(self._spec.retry, self._target, began, self._clock)
                        self._retrying += 1
                    number += 1
                    avoid = avoid if failed.name in avoid else (*avoid, failed.name)
                    discarded = total(discarded, self._priced(failed.failure.usage))
                    with charged(discarded):
                        if isinstance(failed.__cause__, LLMDenied):
                            denied = denied or {}
                            self._check_denial(failed.name, failed.__cause__, denied)
                        await self._back_off(retries, failed.failure, self._clock() - sent)
        finally:
            self._retrying -= retries is not None

    def _check_denial(self, name: str, denial: LLMDenied, denied: dict[str, float]) -> None:
        """Raise a repeated denial if the replica answered other calls meanwhile: it concerns this call."""
        if name in denied and self._replicas.answered_since(name, denied[name]):
            raise denial
        denied[name] = self._clock()

    async def _back_off(self, retries: RetryState, failure: Retryable, seconds: float) -> None:
        """Wait before the next attempt, after one that took `seconds`.

        A refused call waits here only if the driver does not throttle attempts. The wait does not count if no
        other call was answered meanwhile, or if no server accepted the request.
        """
        if failure.notice:
            self._notify_once(f"{self._spec.service}: {failure.notice}")
        began = self._clock()
        wait = retries.wait(failure, self._answered_at, others_fail=self._retrying > 1)
        if failure.limit:
            self._limiter.refused(retries.policy.honored(failure.retry_after), str(failure), seconds)
            if self._limiter.throttled:
                wait = 0.0
            with self._idle(), self._limiter.pause(wait):
                await self._pause(wait)
        else:
            with self._idle():
                await self._sleep(wait)
        refused = failure.limit and self._answered_at < began
        if self._spec.patient and (refused or not failure.taken):
            retries.exclude(self._clock() - began)

    async def _pause(self, seconds: float) -> None:
        """Wait, at most until a call that began later is answered: then the service accepts calls again."""
        while self._pausing and self._pausing[0][1].done():
            self._pausing.popleft()
        async with asyncio.TaskGroup() as group:
            sleeping = group.create_task(_wait(self._sleep(seconds)))
            self._pausing.append((self._clock(), sleeping))

    def _wake(self, began: float) -> None:
        """Wake one call refused before `began`, when an answered call began."""
        pausing = self._pausing
        while pausing and (pausing[0][1].done() or pausing[0][0] < began):
            _, sleeping = pausing.popleft()
            if sleeping.cancel():
                return

    @contextmanager
    def _idle(self) -> Generator[None]:
        self._limiter.idle += 1
        try:
            yield
        finally:
            self._limiter.idle -= 1

    async def _attempt(
        self,
        request: ChatRequest | EmbedRequest,
        attempt: Attempt[Reply],
        key: str,
        avoid: Collection[str],
        need: Amount | None,
    ) -> Reply:
        """Make one attempt, and settle its usage against the `need` that is reserved for it."""
        used = _FAILED
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
            known = usage.prompt > 0 and (usage.completion > 0 or not _has_content(reply))
            used = self._used(usage, need, known)
            self._learn(request, reply, known, self._clock() - began)
            if self._pausing:
                self._wake(began)
            return reply
        except asyncio.CancelledError:
            used = need or used  # the provider may charge for it
            raise
        except (AttemptFailed, LLMError) as error:
            usage = self._priced(error.failure.usage if isinstance(error, AttemptFailed) else error.usage)
            if usage is not None:  # it was answered, so the provider charges for it
                used = self._used(usage, need, usage.prompt > 0)
                if isinstance(error, LLMError):
                    error.usage = usage
            raise
        finally:
            self._limiter.end(need, used)

    def _priced(self, usage: Usage | None) -> Usage | None:
        if self._spec.price is None or usage is None:
            return usage
        return msgspec.structs.replace(usage, usd=self._spec.price.cost(usage))

    def _used(self, usage: Usage, need: Amount | None, known: bool) -> Amount:
        """Return the amount charged for an answered call: the reserved amount where usage is not `known`."""
        used = Amount(1.0, 1.0, usage.prompt + usage.completion, usage.usd)
        if known:
            return used
        self._notify_once(
            f"{self._spec.service} does not say how many tokens a reply took; "
            "limits and budget count what was reserved for it, and rows what is known"
        )
        return used if need is None else used.most(need._replace(requests=1.0, calls=1.0))

    def _learn(self, request: ChatRequest | EmbedRequest, reply: Reply, known: bool, seconds: float) -> None:
        """Update estimates and durations from a reply; `seconds` include the wait for a second request."""
        self._answered_at = self._clock()
        self._limiter.answered(reply.seconds, reply.usage.completion)
        if known and self._limiter.limited:
            self._estimates.learn(request, reply.usage)
        if isinstance(reply, ChatReply) and reply.finish_reason not in KNOWN:
            self._notify_once(
                f"{self._spec.service} ended a reply with the unknown finish_reason {reply.finish_reason!r}; "
                "such replies are taken as whole"
            )
        if self._hedging is not None:
            self._hedging.took(seconds)

    async def _hedged(
        self, name: str, attempt: Attempt[Reply], avoid: Collection[str], delay: float, need: Amount | None
    ) -> Reply:
        """Return the first of two replies; after `delay` seconds a second request goes to another replica."""
        assert self._hedging is not None
        outcome: Reply | Exception
        async with asyncio.TaskGroup() as group:
            pending = {group.create_task(_outcome(self._replicas.ask(name, attempt)))}
            done, pending = await asyncio.wait(pending, timeout=delay)
            if not done and self._limiter.try_take(need):
                self._hedging.sent()
                pending.add(group.create_task(self._second(attempt, {*avoid, name}, need)))
            if not done:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            outcome = done.pop().result()
            if isinstance(outcome, AttemptFailed):  # the other request may still succeed
                for other in (*done, *pending):
                    outcome = await other
            for other in pending:
                other.cancel()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _second(
        self, attempt: Attempt[Reply], avoid: Collection[str], need: Amount | None
    ) -> Reply | Exception:
        used = need or _FAILED
        try:
            outcome = await _outcome(self._elsewhere(attempt, avoid))
            if isinstance(outcome, Exception):
                used = _FAILED
            else:
                usage = self._priced(outcome.usage) or outcome.usage
                used = self._used(usage, need, usage.prompt > 0)
            return outcome
        finally:
            self._limiter.end(need, used)

    async def _elsewhere(self, attempt: Attempt[Reply], avoid: Collection[str]) -> Reply:
        return await self._replicas.ask(self._replicas.choose("", avoid), attempt)


def _has_content(reply: ChatReply | EmbedReply) -> bool:
    return isinstance(reply, ChatReply) and bool(reply.text or reply.reasoning or reply.tool_calls)


async def _wait(sleeping: Awaitable[None]) -> None:
    await sleeping


async def _outcome(asked: Awaitable[Reply]) -> Reply | Exception:
    try:
        return await asked
    except Exception as error:
        return error
