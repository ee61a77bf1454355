"""A service of a third party, as its author writes it: one file."""

import asyncio
from dataclasses import dataclass, field
from typing import Annotated, Any

from peerloom.options import FREE, Options
from peerloom.services.base import Policy, Service, ServiceSpec
from peerloom.services.leased.resource import Rejected, Resource
from peerloom.services.leased.service import StatefulOptions
from peerloom.services.llm.limits.service_quota import Limits


class Counter(Resource):
    """Counts up, slowly if asked to."""

    async def start(self) -> None:
        self.value = self.options["first"]

    async def call(self, request: Any) -> Any:
        if request.get("odd"):
            raise Rejected("it counts no odd things")
        if request.get("break"):
            self.value += 1_000
            raise RuntimeError("the counter broke")
        await asyncio.sleep(request.get("seconds", 0))
        self.value += 1
        return self.value


@dataclass(frozen=True, kw_only=True)
class Counters(StatefulOptions):
    """Counters that begin at `first`."""

    resource = Counter
    first: Annotated[int, FREE] = 0


class EchoClient:
    """Answers each call with its number in this process: so it shows which calls were made again."""

    def __init__(self) -> None:
        self.calls = 0

    async def call(self, request: Any) -> Any:
        self.calls += 1
        return [request, self.calls]

    async def close(self) -> None: ...


class EchoSpec(ServiceSpec):
    def connect(self, context: Any) -> EchoClient:
        return EchoClient()


class EchoService(Service):
    def __init__(self, policy: Policy, limits: Limits) -> None:
        self.policy: Policy = policy
        self.limits = limits

    async def start(self, name: str, spawner: Any, notify: Any, log_dir: Any) -> EchoSpec:
        return EchoSpec(policy=self.policy, limits=self.limits)


@dataclass(frozen=True, kw_only=True)
class Echo(Options):
    """A service without state."""

    policy: Annotated[Policy, FREE] = "replay"
    limits: Limits = field(default_factory=Limits)

    def service(self) -> EchoService:
        return EchoService(self.policy, self.limits)
