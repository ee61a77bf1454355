"""Define the protocols of a language model service and of the clients of it.

The driver holds an `LLMService`, which starts and watches the processes that a model needs. Its `start`
returns a `ClientSpec`, which is pickled to every peer; each peer creates one client from it.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from peerloom.services.lifecycle import Lifecycle
from peerloom.services.llm.base import LLM
from peerloom.services.llm.client.client import ReplicatedClientSpec
from peerloom.services.llm.client.context import ClientContext


class ClientSpec(Protocol):
    """Creates clients of one or several running services. Picklable."""

    @property
    def fleets(self) -> Sequence[ReplicatedClientSpec]:
        """The services, each with its limits."""
        ...

    def map_services(self, change: Callable[[ReplicatedClientSpec], ReplicatedClientSpec]) -> "ClientSpec":
        """Return a copy in which `change` was applied to each service."""
        ...

    def connect(self, context: ClientContext | None = None) -> LLM:
        """Return a client for the running event loop; `context` connects it with the driver."""
        ...


def start_step(service: "LLMService") -> str:
    """Return the description of `service.start` to show to the user: its `step`, if it has one."""
    return getattr(service, "step", "connecting to the model")


class LLMService(Lifecycle[ClientSpec], Protocol):
    """A language model service, as seen from the driver.

    A service that takes long to start has an attribute `step` with the reason, e.g. `loading the model`. Its
    `start` also checks that the service answers, and raises a `ModelError` if there is no such model.
    """
