"""The two halves of a language model service, and what passes between them.

The driver holds an `LLMService`: it starts and watches what the model needs. What `start` returns, a
`ClientSpec`, is pickled to every peer, and each makes itself one client of it.
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
"""Called with a service's name and all its replicas (base URLs), whenever these have changed."""


class ClientSpec(Protocol):
    """How to reach a model that runs, or several. Picklable."""

    @property
    def fleets(self) -> Sequence[ReplicatedClientSpec]:
        """The services behind it, each with its limits."""
        ...

    def metered(self, everything: bool) -> "ClientSpec":
        """The same, with calls metered where a service has limits, or everywhere."""
        ...

    def priced(self, prices: Prices) -> "ClientSpec":
        """The same, with what tokens cost."""
        ...

    def connect(self, desk: QuotaClient | None = None) -> LLM:
        """A client for the running event loop; `desk` passes on what it uses, and what it may use."""
        ...


def start_step(service: "LLMService") -> str:
    """What `service.start` does, for a person to read: its `step`, if it has one."""
    return getattr(service, "step", "connecting to the model")


class LLMService(Protocol):
    """A model the run depends on, seen from the driver.

    One that takes long to start has an attribute `step`, which says why, e.g. `loading the model`.
    """

    async def start(self, spawner: Spawner, notify: Callable[[str], None], log_dir: Path) -> ClientSpec:
        """Start what is needed, and check that it answers.

        Args:
            spawner: starts the processes the service needs.
            notify: called with a line for a person to read.
            log_dir: where such processes write their logs.

        Raises:
            ServiceError: if it cannot be started or reached; the text says what to do.
            ModelError: if there is no such model.
        """
        ...

    async def watch(self, moved: Moved) -> None:
        """Wait until the service dies; for ever, if it does not.

        Args:
            moved: hears where the replicas are.

        Raises:
            ServiceError: when it has died.
        """
        ...

    async def stop(self) -> None:
        """Stop what was started. May be called at any time, and twice."""
        ...
