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
from collections.abc import Awaitable, Callable
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
    total,
    with_usage,
)
from peerloom.services.llm.client.context import ClientContext
from peerloom.services.llm.client.replicas import BackendFactory, Replicas
from peerloom.services.llm.client.routing import Routing
from peerloom.services.llm.limits.service_quota import Limits
from peerloom.services.llm.retry import Retry, Retryable, RetryState
from peerloom.services.llm.usage.amounts import Amount
from peerloom.services.llm.usage.estimates import Estimates
from peerloom.services.llm.usage.prices import Price, Prices
from peerloom.services.llm.wire_format.finish_reasons import KNOWN
from peerloom.task import Usage

Send = Callable[[int, Backend], Awaitable[Reply]]
"""Sends the request of a call to a backend; the number is that of the attempt."""
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
        price: the price of tokens; None if it is unknown.
        limits: the provider's limits for the whole run.
        limited: whether calls need quota from the start.
        patient: whether calls wait while the service is unavailable instead of failing.
        provider: the name of the provider or engine, for the provenance of rows.
        revision: the digest of the model's weights, if they are a local file.
    """

    service: str = "llm"
    model: str
    replicas: tuple[str, ...]
    backend_factory: BackendFactory
    retry: Retry = field(default_factory=Retry)
    routing: Routing = field(default_factory=Routing)
    price: Price | None = None
    limits: Limits = field(default_factory=Limits)
    limited: bool = False
    patient: bool = True
    provider: str = ""
    revision: str = ""

    @property
    def origin(self) -> dict[str, str]:
        """The provider, the model, and its revision, for the provenance of rows."""
        found = {"provider": self.provider, "model": self.model, "revision": self.revision}
        return {name: value for name, value in found.items() if value}

    @property
    def fleets(self) -> "tuple[ReplicatedClientSpec, ...]":
        """The services: this one."""
        return (self,)

    def map_services(
        self, change: "Callable[[ReplicatedClientSpec], ReplicatedClientSpec]"
    ) -> "ReplicatedClientSpec":
        """Return the changed service."""
        return change(self)

    def with_limits(self, everything: bool) -> "ReplicatedClientSpec":
        """Return a copy that limits calls if the service has limits, or if `everything` is true."""
        return replace(self, limited=everything or self.limits.bounded)

    def with_prices(self, prices: Prices) -> "ReplicatedClientSpec":
        """Return a copy with the price of tokens from `prices`, or else the service's own price."""
        found = prices.find(self.model, self.replicas[0] if self.replicas else "")
        return replace(self, price=found or self.price)

    def connect(self, context: ClientContext | None = None) -> "ReplicatedClient":
        """Return a client for the running event loop; `context` connects it with the driver."""
        return ReplicatedClient(self, context or ClientContext())


class ReplicatedClient:
    """Calls one service; see `ReplicatedClientSpec`. `sleep` waits between attempts; tests replace it."""

    def __init__(
        self, spec: ReplicatedClientSpec, context: ClientContext, *, sleep: Sleep = asyncio.sleep
    ) -> None:
        self._spec = spec
        self._context = context
        self._sleep = sleep
        self._clock = context.clock
        self._target = f"{spec.model} at {', '.join(spec.replicas[:3])}"
        self._replicas = Replicas(
            self._target,
            spec.replicas,
            spec.backend_factory,
            spec.routing,
            clock=self._clock,
            on_down=partial(context.set_down, spec.service),
            patient=spec.patient,
        )
        context.on_move(spec.service, self._replicas.move)
        self._limiter = context.limiter(spec.service, limited=spec.limited)
        self._estimates = Estimates(spec.price)
        self._answered_at = -math.inf
        self._retrying = 0  # calls that have failed and are retried
        self._pausing: deque[tuple[float, asyncio.Future[None]]] = deque()  # refused calls, and since when

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

    async def _call(self, request: ChatRequest | EmbedRequest, send: Send[Reply]) -> Reply:
        key = self._spec.routing.key(request.session, request.role)
        began = self._clock()  # moves on while the call cannot be sent
        retries: RetryState | None = None  # created on the first failure, since many thousands of calls wait
        try:
            while True:
                if not self._replicas.all_live:
                    with self._context.idle():
                        began += await self._replicas.available()
                need: Amount | None = None
                if self._limiter.limited:
                    queued = self._clock()
                    need = self._estimates.need(request)
                    await self._limiter.take(request.role, need, first=retries is not None)
                    began += self._clock() - queued
                else:
                    self._limiter.begin()
                sent = self._clock()
                try:
                    reply = await self._attempt(request, send, key, retries, need)
                except Retryable as failure:
                    if retries is None:
                        retries = RetryState(self._spec.retry, self._target, began, self._clock)
                        self._retrying += 1
                    self._check_denial(retries, failure)
                    began += await self._back_off(retries, failure, began, self._clock() - sent)
                else:
                    if retries is None:
                        return reply
                    usage = total(reply.usage, retries.usage) or reply.usage
                    return msgspec.structs.replace(reply, usage=usage, tries=retries.made + 1)
        except LLMError as error:
            error.usage = error.usage if retries is None else total(error.usage, retries.usage)
            raise
        finally:
            self._retrying -= retries is not None

    def _check_denial(self, retries: RetryState, failure: Retryable) -> None:
        """Raise a repeated denial if the replica answered other calls meanwhile: it concerns this call."""
        if isinstance(denial := failure.__cause__, LLMDenied):
            denied_at = retries.denied.get(failure.replica)
            if denied_at is not None and self._replicas.answered_since(failure.replica, denied_at):
                raise denial
            retries.denied[failure.replica] = self._clock()

    async def _back_off(self, retries: RetryState, failure: Retryable, began: float, seconds: float) -> float:
        """Wait before the next attempt, after one that took `seconds`; return the seconds that do not count.

        A refused call waits here only if the driver does not throttle attempts. The wait does not count if no
        other call was answered meanwhile, or if no server accepted the request.
        """
        if failure.notice:
            self._context.notify_once(f"{self._spec.service}: {failure.notice}")
        failed = self._clock()
        wait = retries.wait(failure, began, self._answered_at, others_fail=self._retrying > 1)
        with self._context.idle():
            if failure.limit:
                self._limiter.refused(self._spec.retry.honored(failure.retry_after), str(failure), seconds)
                wait = 0.0 if self._limiter.throttled else wait
                with self._limiter.pause(wait):
                    await self._pause(wait)
            else:
                await self._sleep(wait)
        refused = failure.limit and self._answered_at < failed
        excluded = self._spec.patient and (refused or not failure.taken)
        return self._clock() - failed if excluded else 0.0

    async def _pause(self, seconds: float) -> None:
        """Wait, at most until a call that began later is answered: then the service accepts calls again."""
        while self._pausing and self._pausing[0][1].done():
            self._pausing.popleft()
        sleeping = asyncio.ensure_future(self._sleep(seconds))
        self._pausing.append((self._clock(), sleeping))
        try:
            await asyncio.wait((sleeping,))
        finally:
            sleeping.cancel()

    def _wake(self, began: float) -> None:
        """Wake one call refused before `began`, when an answered call began."""
        pausing = self._pausing
        while pausing and (pausing[0][1].done() or pausing[0][0] < began):
            _, sleeping = pausing.popleft()
            if sleeping.cancel():
                return

    async def _attempt(
        self,
        request: ChatRequest | EmbedRequest,
        send: Send[Reply],
        key: str,
        retries: RetryState | None,
        need: Amount | None,
    ) -> Reply:
        """Make one attempt, and settle its usage against the `need` that is reserved for it."""
        used = _FAILED
        began = self._clock()
        try:
            number, avoid = (0, ()) if retries is None else (retries.made, retries.avoid)
            with self._replicas.attempt(key, avoid) as backend:
                reply = await send(number, backend)
            if self._spec.price is not None:
                reply = with_usage(reply, self._priced(reply.usage))
            usage = reply.usage
            known = usage.prompt > 0 and (usage.completion > 0 or not _has_content(reply))
            used = self._used(usage, need, known)
            self._learn(request, reply, known)
            if self._pausing:
                self._wake(began)
            return reply
        except asyncio.CancelledError:
            used = need or used  # the provider may charge for it
            raise
        except (Retryable, LLMError) as error:
            if error.usage is not None:  # it was answered, so the provider charges for it
                error.usage = self._priced(error.usage)
                used = self._used(error.usage, need, error.usage.prompt > 0)
            raise
        finally:
            self._limiter.end(need, used)

    def _priced(self, usage: Usage) -> Usage:
        if self._spec.price is None:
            return usage
        return msgspec.structs.replace(usage, usd=self._spec.price.cost(usage))

    def _used(self, usage: Usage, need: Amount | None, known: bool) -> Amount:
        """Return the amount charged for an answered call: the reserved amount where usage is not `known`."""
        used = Amount(1.0, 1.0, usage.prompt + usage.completion, usage.usd)
        if known:
            return used
        self._context.notify_once(
            f"{self._spec.service} does not say how many tokens a reply took; "
            "limits and budget count what was reserved for it, and rows what is known"
        )
        return used if need is None else used.most(need._replace(requests=1.0, calls=1.0))

    def _learn(self, request: ChatRequest | EmbedRequest, reply: Reply, known: bool) -> None:
        """Update estimates and statistics from a reply."""
        if self._answered_at == -math.inf:
            self._context.set_answered(self._spec.service)
        self._answered_at = self._clock()
        self._limiter.answered(reply.seconds, reply.usage.completion)
        if known and self._limiter.limited:
            self._estimates.learn(request, reply.usage)
        if isinstance(reply, ChatReply) and reply.finish_reason not in KNOWN:
            self._context.notify_once(
                f"{self._spec.service} ended a reply with the unknown finish_reason {reply.finish_reason!r}; "
                "such replies are taken as whole"
            )


def _has_content(reply: ChatReply | EmbedReply) -> bool:
    return isinstance(reply, ChatReply) and bool(reply.text or reply.reasoning or reply.tool_calls)
