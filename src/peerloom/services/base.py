"""Define the interface of services, which agents call and never own.

A service has two halves. The driver holds a `Service`, which starts the processes it needs and watches them.
Its `start` returns a `ServiceSpec`, which is pickled to every peer; each peer makes one `ServiceClient` from
it. The language model is a service with a richer client (`services.llm`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from peerloom.protocol.leases.messages import Control, Reply, Request
from peerloom.services.lifecycle import Lifecycle
from peerloom.services.llm.client.context import ClientContext
from peerloom.services.llm.limits.limiter import ServiceLimiter
from peerloom.services.llm.limits.service_quota import Limits

Policy = Literal["replay", "rerun", "stateful"]
"""How the calls of a turn are repeated when it starts over after the death of its process.

`replay`: a finished call is answered from the journal. `rerun`: it is made again, so it must be safe to
repeat. `stateful`: it is a step on a lease, which has the state that the recorded steps have led to.
"""


class ServiceClient(Protocol):
    """Calls a service from one peer. Requests and replies are JSON values."""

    async def call(self, request: Any) -> Any:
        """Make a call.

        Raises:
            CallError: if the service refuses or fails it, after the client's own retries.
        """
        ...

    async def close(self) -> None:
        """Close all connections; the client cannot be used afterwards."""
        ...


class StatefulClient(Protocol):
    """Calls a service whose resources tasks hold, from one peer.

    `per_task` is the largest number of them that a task may hold, if that is declared.
    """

    per_task: int | None

    async def send(self, request: Request, place: str) -> Reply | None:
        """Send a request to the process at `place`, or to the one for this task if that is empty or gone.

        Returns None if the connection was lost, so that the request may have been carried out or not.
        """
        ...

    async def close(self) -> None:
        """Close all connections; the client cannot be used afterwards."""
        ...


class ConnectedService(NamedTuple):
    """The client of a service in one peer, the policy of its calls, and their limiter, if any."""

    policy: Policy
    client: ServiceClient | StatefulClient
    limiter: ServiceLimiter | None = None


@dataclass(frozen=True, kw_only=True)
class ServiceSpec:
    """Makes the clients of a running service. Picklable.

    Args:
        policy: how its calls are recorded.
        limits: the limits of its calls, over all peers; tokens are not counted.
        max_tasks: the number of tasks that can use it at the same time, if that is known: no more are in
            flight.
    """

    policy: Policy
    limits: Limits = field(default_factory=Limits)
    max_tasks: int | None = None

    def connect(self, context: ClientContext) -> ServiceClient | StatefulClient:
        """Return a client for the running event loop; `context` connects it with the driver."""
        raise NotImplementedError


class Service(Lifecycle[ServiceSpec], Protocol):
    """A service besides the language model, as seen from the driver."""

    async def control(self, messages: Sequence[Control]) -> None:
        """Pass on messages of the feeders about the tasks that may hold its leases."""
