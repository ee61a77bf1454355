"""A run's peers and its driver in virtual time, and a provider that counts strictly.

Peers and driver are the real ones (`ReplicatedClient`, `ClientContext`, `QuotaCoordinator`); between them
messages take their time, and come in another order than they were sent. Each peer has some workers of each
role, each of which makes one call after the other. The provider is `Quota`; some replies are long.
"""

import asyncio
import random
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from virtual_time import run_virtually

from peerloom.errors import LLMError
from peerloom.protocol.messages import QuotaGrants
from peerloom.runtime.driver.quota import QuotaCoordinator
from peerloom.services.llm.base import ChatReply, ChatRequest, EmbedReply, EmbedRequest
from peerloom.services.llm.client.client import ReplicatedClient, ReplicatedClientSpec
from peerloom.services.llm.client.context import ClientContext
from peerloom.services.llm.limits.service_quota import Limits
from peerloom.services.llm.retry import Retryable
from peerloom.services.llm.simulated.behavior import SimulatorOptions
from peerloom.services.llm.simulated.quota import Quota
from peerloom.services.llm.usage.budget import Budget
from peerloom.task import Usage

PROMPT = "word " * 200  # some 250 tokens
SERVICE = "llm"


@dataclass(frozen=True, kw_only=True)
class Role:
    """What one agent does.

    Args:
        workers: of it in each peer.
        tokens: the median length of its replies.
        sigma: their spread (log-normal): 1 is a long tail.
        pause: seconds between a worker's calls, on average.
        max_tokens: asked for.
    """

    workers: int = 20
    tokens: float = 120.0
    sigma: float = 1.0
    pause: float = 0.0
    max_tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Who calls whom; seconds."""

    quota: Mapping[str, Any]
    limits: Limits = field(default_factory=Limits)
    roles: Mapping[str, Role] = field(
        default_factory=lambda: {
            "solver": Role(tokens=250.0),
            "critic": Role(tokens=100.0),
            "judge": Role(tokens=20.0, sigma=0.5),
        }
    )
    peers: int = 4
    minutes: float = 10.0
    warm: float = 1.0  # minutes at the beginning that do not count
    delay: tuple[float, float] = (0.002, 0.02)  # of messages
    way: tuple[float, float] = (0.005, 0.05)  # of a call, to the provider
    latency: float = 0.3
    tokens_per_second: float = 100.0
    slow_from: float = 0.0  # concurrency from which it gets slower
    comes: Mapping[float, int] = field(default_factory=dict[float, int])  # minute: peers more, or less
    budget: Budget = field(default_factory=Budget)
    seed: int = 1


class StrictBackend:
    """The provider: refuses what is above its limits, exactly, and answers the rest."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.quota = Quota(SimulatorOptions(**plan.quota))
        self.rng = Random(plan.seed)
        self.let_in: list[tuple[float, int]] = []
        self.refusals: list[tuple[float, str]] = []
        self.taken = 0
        self.answered = 0

    def __call__(self, name: str) -> "StrictBackend":
        return self

    async def chat(self, request: ChatRequest, attempt: int) -> ChatReply:
        plan, rng, loop = self.plan, self.rng, asyncio.get_running_loop()
        role = plan.roles[request.role]
        prompt = 260
        length = max(1, int(role.tokens * rng.lognormvariate(0.0, role.sigma)))
        length = min(length, request.max_tokens or 4_000)
        await asyncio.sleep(rng.uniform(*plan.way))
        now = loop.time()
        refusal = self.quota.enter(prompt + length, now)
        if refusal is not None:
            self.refusals.append((now, refusal.reason))
            raise Retryable("HTTP 429", refusal.seconds, limit=True)
        self.let_in.append((now, prompt + length))
        self.taken += prompt + length
        slower = max(1.0, self.quota.running / plan.slow_from) if plan.slow_from else 1.0
        seconds = slower * (plan.latency + length / plan.tokens_per_second)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.quota.leave()
        self.answered += 1
        usage = Usage(prompt=prompt, completion=length, cached=0, calls=1)
        return ChatReply(text="", usage=usage, seconds=seconds)

    async def embed(self, request: EmbedRequest, attempt: int) -> EmbedReply:
        raise NotImplementedError

    async def healthy(self) -> bool:
        return True

    async def close(self) -> None:
        pass


@dataclass
class Seen:
    """What came of it, without the first minutes.

    `used` is the part of each allowance that was used, `refused` the share of attempts that were refused,
    `waits` the seconds that each call of a role waited before it was let in.
    """

    plan: Plan
    used: dict[str, float]
    refused: float
    reasons: Counter[str]
    refused_at: list[float]
    calls: Counter[str]
    waits: dict[str, list[float]]
    spent: Any
    taken: int
    answered: int
    exhausted: bool

    def wait(self, role: str, part: float = 0.95) -> float:
        ordered = sorted(self.waits[role])
        return ordered[int(part * (len(ordered) - 1))]


class World:
    """All of it, for the time of one plan."""

    def __init__(self, plan: Plan, run_dir: Path) -> None:
        self.plan = plan
        self.loop = asyncio.get_running_loop()
        self.rng = Random(plan.seed + 1)
        self.provider = StrictBackend(plan)
        spec = ReplicatedClientSpec(
            service=SERVICE, model="m", replicas=("here",), backend_factory=self.provider, limits=plan.limits
        )
        self.rationing = QuotaCoordinator(
            {SERVICE: plan.limits},
            plan.budget,
            run_dir,
            send=self._to_peer,
            notify=lambda notice: None,
            clock=self.loop.time,
        )
        self.spec = spec.with_limits(self.rationing.spending.bounded)
        self.desks: dict[str, ClientContext] = {}
        self.working: dict[str, asyncio.Task[None]] = {}
        self.names = iter(f"peer-{number}" for number in range(1_000))
        self.failed: asyncio.Future[None] = self.loop.create_future()
        self.calls: Counter[str] = Counter()
        self.waits: dict[str, list[float]] = {role: [] for role in plan.roles}

    def _later(self, what: Any, *args: Any) -> None:
        self.loop.call_later(self.rng.uniform(*self.plan.delay), what, *args)

    def _to_peer(self, name: str, data: QuotaGrants) -> None:
        self._later(lambda: self.desks[name].apply_grants(data.data) if name in self.desks else None)

    async def _report(self, name: str, desk: ClientContext) -> None:
        while True:
            self._later(self.rationing.add_reports, name, await desk.report_usage())

    async def _worker(self, client: ReplicatedClient, role: str) -> None:
        does, loop = self.plan.roles[role], self.loop
        await asyncio.sleep(self.rng.uniform(0.0, 1.0))
        while True:
            if does.pause:
                await asyncio.sleep(self.rng.expovariate(1.0 / does.pause))
            began = loop.time()
            request = ChatRequest(
                messages=[{"role": "user", "content": PROMPT}], role=role, max_tokens=does.max_tokens
            )
            try:
                reply = await client.chat(request)
            except LLMError as error:
                raise AssertionError(f"a call has failed: {error}") from error
            if began > self.plan.warm * 60.0:
                self.calls[role] += 1
                self.waits[role].append(loop.time() - began - reply.seconds)

    async def _peer(self, name: str) -> None:
        desk = self.desks[name] = ClientContext(clock=self.loop.time)
        client = ReplicatedClient(self.spec, desk)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._report(name, desk))
            for role, does in self.plan.roles.items():
                for _ in range(does.workers):
                    group.create_task(self._worker(client, role))

    def join(self) -> None:
        name = next(self.names)
        self.working[name] = working = self.loop.create_task(self._peer(name))
        working.add_done_callback(self._ended)
        self.rationing.joined(name)

    def leave(self) -> None:
        """The oldest peer dies; nobody hears what it had to say last."""
        name = next(iter(self.working))
        self.working.pop(name).cancel()
        self.desks.pop(name)
        self._later(self.rationing.lost, name)

    def _come(self, more: int) -> None:
        for _ in range(abs(more)):
            if more > 0:
                self.join()
            else:
                self.leave()

    async def go(self) -> Seen:
        plan = self.plan
        self.loop.set_exception_handler(self._defect)
        driver = self.loop.create_task(self.rationing.run())
        self._come(plan.peers)
        for minute, more in plan.comes.items():
            self.loop.call_later(60.0 * minute, self._come, more)
        end = self.loop.create_task(asyncio.sleep(60.0 * plan.minutes))
        over = self.loop.create_task(self.rationing.exhausted.wait())
        await asyncio.wait((driver, end, over, self.failed), return_when="FIRST_COMPLETED")
        for task in (self.failed, driver):
            if task.done():
                task.result()
        for task in (driver, end, over, *self.working.values()):
            task.cancel()
        await asyncio.wait((driver, end, over, *self.working.values()))
        return self._seen()

    def _ended(self, working: "asyncio.Task[None]") -> None:
        if not working.cancelled() and not self.failed.done():
            self.failed.set_exception(working.exception() or RuntimeError("a peer has ended"))

    def _defect(self, loop: Any, context: dict[str, Any]) -> None:
        if not self.failed.done():
            self.failed.set_exception(context.get("exception") or RuntimeError(context["message"]))

    def _seen(self) -> Seen:
        plan, provider = self.plan, self.provider
        begin, end = plan.warm * 60.0, plan.minutes * 60.0
        let_in = [(at, tokens) for at, tokens in provider.let_in if begin <= at]
        refusals = [(at, why) for at, why in provider.refusals if begin <= at]
        windows = (end - begin) / plan.quota.get("limit_window", 60.0)
        used = {}
        if plan.quota.get("limit_rpm"):
            used["limit_rpm"] = len(let_in) / windows / plan.quota["limit_rpm"]
        if plan.quota.get("limit_tpm"):
            used["limit_tpm"] = sum(tokens for _, tokens in let_in) / windows / plan.quota["limit_tpm"]
        if plan.quota.get("limit_concurrency"):
            used["limit_concurrency"] = self._busy() / plan.quota["limit_concurrency"]
        return Seen(
            plan=plan,
            used=used,
            refused=len(refusals) / max(1, len(let_in) + len(refusals)),
            reasons=Counter(why for _, why in refusals),
            refused_at=[at for at, _ in refusals],
            calls=self.calls,
            waits=self.waits,
            spent=self.rationing.spending,
            taken=provider.taken,
            answered=provider.answered,
            exhausted=self.rationing.exhausted.is_set(),
        )

    def _busy(self) -> float:
        """Calls that the provider had under way, on average over the time that counts."""
        plan = self.plan
        begin, end = plan.warm * 60.0, plan.minutes * 60.0
        total = 0.0
        for at, tokens in self.provider.let_in:
            until = at + plan.latency + (tokens - 260) / plan.tokens_per_second
            total += max(0.0, min(until, end) - max(at, begin))
        return total / (end - begin)


def simulate(plan: Plan, **changes: Any) -> Seen:
    """Carry a plan out."""

    async def go() -> Seen:
        with tempfile.TemporaryDirectory() as run_dir:
            return await World(replace(plan, **changes), Path(run_dir)).go()

    random.seed(plan.seed)  # what the clients' waits are drawn from
    return run_virtually(go())
