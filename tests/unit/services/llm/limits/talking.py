"""Peers' desks and the driver's allowance, without anything between them; the clock is the test's."""

import asyncio
from collections.abc import Mapping

from peerloom.services.llm.client.context import ClientContext
from peerloom.services.llm.limits.limiter import ServiceLimiter
from peerloom.services.llm.limits.quota_manager import QuotaManager
from peerloom.services.llm.limits.service_quota import Limits
from peerloom.services.llm.usage.amounts import (
    NOTHING,
    Amount,
    QuotaGrant,
    UsageReport,
    decode_grants,
    decode_reports,
)
from peerloom.services.llm.usage.budget import Budget, Spending


def call(tokens: float = 0.0, usd: float = 0.0) -> Amount:
    """What one call may take, or took."""
    return Amount(1.0, 1.0, tokens, usd)


class Talk:
    """So many peers with a meter each of one service, and the driver."""

    def __init__(
        self,
        *peers: str,
        limits: Limits | None = None,
        budget: Budget | None = None,
        earlier: Amount = NOTHING,
    ) -> None:
        self.now = 0.0
        spending = Spending(budget or Budget(), earlier)
        shares: Mapping[str, Limits] = {"llm": limits or Limits()}
        limited = shares["llm"].bounded or spending.bounded
        self.allowance = QuotaManager(shares, spending, self.now)
        self.limited = limited
        self.desks: dict[str, ClientContext] = {}
        self.meters: dict[str, ServiceLimiter] = {}
        for peer in peers:
            self.join(peer)

    def join(self, peer: str) -> None:
        desk = self.desks[peer] = ClientContext(clock=lambda: self.now)
        self.meters[peer] = desk.limiter("llm", limited=self.limited)
        self.allowance.joined(peer, self.now)

    def read(self, peer: str, *, last: bool = False) -> bytes:
        return self.desks[peer].read_usage(last=last)

    def reading(self, peer: str) -> UsageReport:
        (reading,) = decode_reports(self.read(peer))
        return reading

    def grants(self) -> dict[str, bytes]:
        return dict(self.allowance.grants(self.now))

    def round(self, seconds: float = 0.0) -> dict[str, QuotaGrant]:
        """All say what they want, and hear what they get; that."""
        self.now += seconds
        for peer in self.desks:
            if said := self.read(peer):
                self.allowance.take(peer, said, self.now)
        sent = self.grants()
        for peer, data in sent.items():
            self.desks[peer].apply_grants(data)
        return {peer: decode_grants(data)[0] for peer, data in sent.items()}

    def ask(self, peer: str, need: Amount, count: int = 1, role: str = "role") -> "list[asyncio.Task[None]]":
        """So many calls that wait for their turn; a task is done when its call has begun."""
        return [asyncio.create_task(self.meters[peer].take(role, need)) for _ in range(count)]


async def begun(*groups: "list[asyncio.Task[None]]") -> list[int]:
    """How many calls of each group have begun."""
    for _ in range(3):
        await asyncio.sleep(0)
    return [sum(task.done() and not task.cancelled() for task in group) for group in groups]


async def drop(*groups: "list[asyncio.Task[None]]") -> None:
    """Give up what still waits."""
    tasks = [task for group in groups for task in group]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
