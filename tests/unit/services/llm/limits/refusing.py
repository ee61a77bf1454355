"""Finite work against providers that refuse calls, in virtual time: how long it takes, and what is refused.

The peers and the driver are the real ones, as in `simulation`. The time is compared with that of the same
work done without refusals, and by a plain client (eight requests at once, exponential backoff, like SDKs).
"""

import asyncio
import random
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from virtual_time import run_virtually

from peerloom.runtime.driver.quota import QuotaCoordinator
from peerloom.services.llm.base import ChatReply, ChatRequest, EmbedReply, EmbedRequest
from peerloom.services.llm.client.client import ReplicatedClient, ReplicatedClientSpec
from peerloom.services.llm.client.context import ClientContext
from peerloom.services.llm.limits.service_quota import Limits
from peerloom.services.llm.retry import Retryable
from peerloom.services.llm.usage.budget import Budget
from peerloom.task import Usage

SERVICE = "llm"
WAY_SECONDS = 0.005
PLAIN_CLIENTS = 8
FENCED_SECONDS = 5.0
REQUEST = ChatRequest(messages=[{"role": "user", "content": "Hello"}], role="agent")

Refuse = Callable[[float, Random], float | None]
"""Decides on an attempt at that time: None lets it in, else the seconds until one like it would be."""


def never() -> Refuse:
    """Let everything in."""
    return lambda now, rng: None


def at_random(share: float) -> Refuse:
    """Refuse that share of attempts, whatever the load."""
    return lambda now, rng: 0.0 if rng.random() < share else None


def in_bursts(share: float, length: int = 20) -> Refuse:
    """Refuse that share of attempts, so many in a row each time."""
    left = 0

    def refuse(now: float, rng: Random) -> float | None:
        nonlocal left
        if not left and rng.random() < share / (length * (1.0 - share)):
            left = length
        left = max(0, left - 1)
        return 0.0 if left else None

    return refuse


def in_storms(share: float, seconds: float = 1.0) -> Refuse:
    """Refuse everything for so long, that share of the time; the first time early on."""
    every = seconds / share
    return lambda now, rng: seconds - (now - 0.3) % every if (now - 0.3) % every < seconds else None


def window(requests: int, seconds: float) -> Refuse:
    """Let in so many within any window of that length, as strictly as can be."""
    let_in: deque[float] = deque()

    def refuse(now: float, rng: Random) -> float | None:
        while let_in and let_in[0] + seconds <= now:
            let_in.popleft()
        if len(let_in) >= requests:
            return let_in[0] + seconds - now
        let_in.append(now)
        return None

    return refuse


def leaky_bucket(per_second: float, burst: int = 0) -> Refuse:
    """As nginx's `limit_req` with `nodelay`: one attempt each interval, and a few more at once."""
    excess, last = 0.0, -1e9

    def refuse(now: float, rng: Random) -> float | None:
        nonlocal excess, last
        after = max(0.0, excess - (now - last) * per_second + 1.0) if last > -1e9 else 0.0
        if after > burst:
            return (after - burst) / per_second
        excess, last = after, now
        return None

    return refuse


@dataclass(frozen=True, kw_only=True)
class Work:
    """Tasks that make one call after the other.

    Args:
        refuse: makes the provider's rule, anew for each run.
        retry_after: what a refusal asks for, given the seconds until it would be let in; None is nothing.
        tasks: how many begin on each peer, at once; 0 is a peer without work.
        calls: of each task, one after the other.
        latency: seconds that a call takes.
        late: peers whose tasks begin later, by their number, in seconds.
        stopped: a peer that stands still from a time on, as after SIGSTOP: its number and the seconds. It is
            fenced `FENCED_SECONDS` later, and another peer does its tasks anew.
        lost: share of messages between peers and driver that never arrive.
        limits: that are declared.
    """

    refuse: Callable[[], Refuse] = never
    retry_after: Callable[[float], float | None] = lambda seconds: None
    tasks: Sequence[int] = (20, 20)
    calls: int = 6
    latency: float = 0.1
    late: dict[int, float] = field(default_factory=dict[int, float])
    stopped: tuple[int, float] | None = None
    lost: float = 0.0
    limits: Limits = field(default_factory=Limits)
    seed: int = 1


@dataclass(frozen=True)
class Outcome:
    """What became of the work: seconds, attempts, how many of them were refused, and most calls at once."""

    seconds: float
    attempts: int
    refused: int
    most_in_flight: int

    @property
    def share(self) -> float:
        return self.refused / max(1, self.attempts)


class Refusing:
    """The provider."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._refuse = work.refuse()
        self._rng = Random(work.seed)
        self.attempts = self.refused = 0
        self.in_flight = self.most_in_flight = 0

    def __call__(self, name: str) -> "Refusing":
        return self

    async def chat(self, request: ChatRequest, attempt: int) -> ChatReply:
        await asyncio.sleep(WAY_SECONDS)
        now = asyncio.get_running_loop().time()
        self.attempts += 1
        seconds = self._refuse(now, self._rng)
        if seconds is not None:
            self.refused += 1
            raise Retryable("HTTP 429: slow down", self._work.retry_after(seconds), limit=True)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self._work.latency)
        finally:
            self.in_flight -= 1
        return ChatReply(text="", usage=Usage(10, 10, 0, 1), seconds=self._work.latency)

    async def embed(self, request: EmbedRequest, attempt: int) -> EmbedReply:
        raise NotImplementedError

    async def healthy(self) -> bool:
        return True

    async def close(self) -> None:
        pass

    def outcome(self) -> Outcome:
        seconds = asyncio.get_running_loop().time()
        return Outcome(seconds, self.attempts, self.refused, self.most_in_flight)


class _Run:
    """The work in the hands of real clients and a real driver."""

    def __init__(self, work: Work, run_dir: Path, group: asyncio.TaskGroup) -> None:
        self.work = work
        self.loop = asyncio.get_running_loop()
        self.rng = Random(work.seed)
        self.provider = Refusing(work)
        self.group = group
        self.desks: dict[str, ClientContext] = {}
        self.peers: list[list[asyncio.Task[None]]] = []
        self.reports: list[asyncio.Task[None]] = []
        self.rationing = QuotaCoordinator(
            {SERVICE: work.limits},
            Budget(),
            run_dir,
            send=lambda name, grants: self.send(self.desks[name].apply_grants, grants.data),
            notify=lambda notice: None,
            clock=self.loop.time,
        )
        spec = ReplicatedClientSpec(
            service=SERVICE, model="m", replicas=("here",), backend_factory=self.provider, limits=work.limits
        )
        self.spec = spec.with_limits(everything=False)

    def send(self, to: Callable[..., None], *args: object) -> None:
        if self.rng.random() >= self.work.lost:
            self.loop.call_later(self.rng.uniform(0.001, 0.01), to, *args)

    async def report(self, name: str) -> None:
        while True:
            self.send(self.rationing.add_reports, name, await self.desks[name].report_usage())

    async def task(self, client: ReplicatedClient, after: float) -> None:
        await asyncio.sleep(after)
        for _ in range(self.work.calls):
            await client.chat(REQUEST)

    def join(self, tasks: int) -> None:
        number = len(self.peers)
        name = f"peer-{number}"
        self.desks[name] = ClientContext(clock=self.loop.time)
        self.rationing.joined(name)
        client, after = ReplicatedClient(self.spec, self.desks[name]), self.work.late.get(number, 0.0)
        self.reports.append(self.group.create_task(self.report(name)))
        self.peers.append([self.group.create_task(self.task(client, after)) for _ in range(tasks)])

    async def stop(self, number: int, after: float) -> None:
        """Stop a peer: the provider answers what it has asked, and nobody hears it."""
        await asyncio.sleep(after)
        self.reports[number].cancel()
        left = sum(not each.done() for each in self.peers[number])
        for each in self.peers[number]:
            each.cancel()
        await asyncio.sleep(FENCED_SECONDS)
        self.rationing.lost(f"peer-{number}")
        self.join(left)

    async def go(self) -> Outcome:
        driver = self.group.create_task(self.rationing.run())
        for tasks in self.work.tasks:
            self.join(tasks)
        if self.work.stopped is not None:
            await self.stop(*self.work.stopped)
        await asyncio.wait([each for begun in self.peers for each in begun])
        outcome = self.provider.outcome()
        for each in (driver, *self.reports):
            each.cancel()
        return outcome


async def _plain(work: Work) -> Outcome:
    provider, rng, free = Refusing(work), Random(work.seed), asyncio.Semaphore(PLAIN_CLIENTS)

    async def call() -> None:
        async with free:
            for number in range(10_000):
                try:
                    await provider.chat(REQUEST, number)
                    return
                except Retryable as refusal:
                    asked = refusal.retry_after
                    own = min(8.0, 0.5 * 2.0 ** min(number, 10)) * (1.0 - 0.25 * rng.random())
                    await asyncio.sleep(asked if asked is not None and 0 < asked <= 60 else own)

    async def task(after: float) -> None:
        await asyncio.sleep(after)
        for _ in range(work.calls):
            await call()

    async with asyncio.TaskGroup() as group:
        for number, tasks in enumerate(work.tasks):
            for _ in range(tasks):
                group.create_task(task(work.late.get(number, 0.0)))
    return provider.outcome()


def do(work: Work) -> Outcome:
    """Do the work with the real client and driver."""

    async def go() -> Outcome:
        with tempfile.TemporaryDirectory() as run_dir:
            async with asyncio.TaskGroup() as group:
                return await _Run(work, Path(run_dir), group).go()

    random.seed(work.seed)
    return run_virtually(go())


def do_plainly(work: Work) -> Outcome:
    """Do the work with the plain client."""
    return run_virtually(_plain(work))


def do_freely(work: Work) -> Outcome:
    """Do the work while nothing is refused."""
    return do(replace(work, refuse=never))
