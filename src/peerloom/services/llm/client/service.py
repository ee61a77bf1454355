"""Define the protocols of a language model service and of the clients of it.

The driver holds an `LLMService`, which starts and watches the processes that a model needs. Its `start`
returns a `ClientSpec`, which is pickled to every peer; each peer creates one client from it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from peerloom.services.llm.base import LLM
from peerloom.services.llm.client.client import ReplicatedClientSpec
from peerloom.services.llm.limits.quota_client import QuotaClient
from peerloom.services.llm.usage.prices import Prices
from peerloom.services.processes.spawn import Spawner

Moved = Callable[[str, Sequence[str]], None]
"""Called with the name of a service and all its replicas (base URLs) whenever they have changed."""


class ClientSpec(Protocol):
    """Creates clients of one or several running services. Picklable."""

    @property
    def fleets(self) -> Sequence[ReplicatedClientSpec]:
        """The services, each with its limits."""
        ...

    def with_limits(self, everything: bool) -> "ClientSpec":
        """Return a copy that limits the calls of services with limits, or of all services."""
        ...

    def with_prices(self, prices: Prices) -> "ClientSpec":
        """Return a copy with the prices of tokens."""
        ...

    def connect(self, quota_client: QuotaClient | None = None) -> LLM:
        """Return a client for the running event loop; `quota_client` exchanges its usage and quota."""
        ...


def start_step(service: "LLMService") -> str:
    """Return the description of `service.start` to show to the user: its `step`, if it has one."""
    return getattr(service, "step", "connecting to the model")


class LLMService(Protocol):
    """A language model service, as seen from the driver.

    A service that takes long to start has an attribute `step` with the reason, e.g. `loading the model`.
    """

    async def start(self, spawner: Spawner, notify: Callable[[str], None], log_dir: Path) -> ClientSpec:
        """Start the processes needed, and check that the service answers.

        Args:
            spawner: starts the processes the service needs.
            notify: called with a line to show to the user.
            log_dir: the directory for the logs of these processes.

        Raises:
            ServiceError: if the service cannot be started or reached; the message says what to do.
            ModelError: if there is no such model.
        """
        ...

    async def watch(self, moved: Moved) -> None:
        """Wait until the service fails, or forever.

        Args:
            moved: called when the replicas have changed.

        Raises:
            ServiceError: when the service has failed.
        """
        ...

    async def stop(self) -> None:
        """Stop all processes that were started. May be called at any time, and repeatedly."""
        ...
