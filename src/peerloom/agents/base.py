"""Define the interface of agents: S' = F(S, M) in the paper's notation.

An agent performs one step of a task. It is stateless: all state is in the task, and it reaches the outside
only through services. It may be called for thousands of tasks concurrently, and again for a task it has acted
on.
"""

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from peerloom.errors import CallError
from peerloom.services.llm.base import LLM
from peerloom.task import Task, Turn


class OpenServices(Protocol):
    """The services of a run besides the language model, as used in one turn."""

    def service(self, name: str) -> Any:
        """Return a service."""
        ...

    async def acquire(self, specs: Mapping[str, Sequence[Any]]) -> dict[str, tuple[Any, ...]]:
        """Acquire leases of several services."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """The services that an agent may call for one task.

    `llm` is the language model, whose calls are added to the turn's usage. `services["name"]` is another
    service of the run: `await services["name"].call(request)`, and for one whose resources tasks hold,
    `acquire`, `leases`, and `release` (see `docs/services.md`).
    """

    llm: LLM
    _others: OpenServices | None = None

    def __getitem__(self, name: str) -> Any:
        return self._opened().service(name)

    async def acquire(self, specs: Mapping[str, Sequence[Any]]) -> dict[str, tuple[Any, ...]]:
        """Acquire leases of several services, a lease for each spec; wait until all are free.

        Returns:
            The leases of each service, in the order of its specs.

        Raises:
            CallError: if the task holds leases already, or a service never has this number of them.
        """
        return await self._opened().acquire(specs)

    def _opened(self) -> OpenServices:
        if self._others is None:
            raise CallError("there is no service besides the model here")
        return self._others


class Agent(Protocol):
    """The behavior of one role."""

    async def act(self, task: Task, services: Services) -> Turn | list[Turn]:
        """Perform one step: read the task, call services, and return the turn or turns to append.

        The runtime sets the turn's `agent`, `usage`, `model` and timing. A `TaskError` ends the task with
        that error's outcome and reason. Any other exception ends it as `failed`, with reason `agent_error`
        and the exception's text in the row.
        """
        ...


@runtime_checkable
class Immediate(Protocol):
    """An agent that calls no services and usually does not wait: it runs without an asyncio task."""

    def at_once(self, task: Task) -> "Turn | list[Turn] | Awaitable[Turn | list[Turn]]":
        """Return the result of `act`, or an awaitable of it."""
        ...
