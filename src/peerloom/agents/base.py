"""Define the interface of agents: S' = F(S, M) in the paper's notation.

An agent performs one step of a task. It is stateless: all state is in the task, and it reaches the outside
only through services. It may be called for thousands of tasks concurrently, and again for a task it has acted
on.
"""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from peerloom.services.llm.base import LLM
from peerloom.task import Task, Turn


@dataclass(frozen=True, slots=True)
class Services:
    """The services that an agent may call for one task. `llm` adds its calls to the turn's usage."""

    llm: LLM


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
