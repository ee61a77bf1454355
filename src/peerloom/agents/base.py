"""The behaviour of one role: S' = F(S, M) in the paper's notation.

An agent is stateless: what it knows of a task is in the task, what it needs from outside it asks of
the services. It may be called for thousands of tasks at once, and again for a task it has acted on.
"""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from peerloom.services.llm.base import LLM
from peerloom.task import Task, Turn


@dataclass(frozen=True, slots=True)
class Services:
    """What an agent may call while it acts on one task. `llm` counts its calls into the turn's usage."""

    llm: LLM


class Agent(Protocol):
    """One role's behaviour."""

    async def act(self, task: Task, services: Services) -> Turn | list[Turn]:
        """Take one step: read the task, call services, return the turn (or turns) to append.

        The runtime fills in the turn's `agent`, `usage`, `model` and timing. A `TaskError` ends the
        task with that error's outcome and reason; any other exception with `failed`, reason
        `agent_error`, and its text in the row.
        """
        ...


@runtime_checkable
class Immediate(Protocol):
    """An agent that need not wait for anything, as a rule, and asks no services: its turn costs no task."""

    def at_once(self, task: Task) -> "Turn | list[Turn] | Awaitable[Turn | list[Turn]]":
        """What `act` would return, or what to await for it."""
        ...
