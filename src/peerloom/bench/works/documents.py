"""`nr`: a document is filtered, marked and made a question of; each row goes on as soon as it can."""

from collections.abc import Sequence as List
from typing import Any

from peerloom.agents.base import Services
from peerloom.runtime.program import Program
from peerloom.services.llm.base import ChatRequest
from peerloom.task import End, Task, Turn
from peerloom.workflow import Sequence


class Asked:
    """One of the three calls: its reply is as long as the row says, and `filter` keeps what the row says.

    Args:
        system: the system message.
        number: which of the calls.
    """

    def __init__(self, system: str, number: int) -> None:
        self._system = system
        self._number = number

    async def act(self, task: Task, services: Services) -> Turn:
        """Ask, and end what the filter drops."""
        row: dict[str, Any] = task.input
        messages = [
            {"role": "system", "content": self._system},
            {"role": "user", "content": f"{row['text']}\n\nStep {self._number + 1}."},
        ]
        reply = await services.llm.chat(
            ChatRequest(messages=messages, max_tokens=row["tokens"][self._number])
        )
        end = None if self._number or row["keep"] else End("filtered", "filter")
        return Turn(agent="", value=reply.text, end=end)


def program(system: str, roles: List[str]) -> Program:
    """The three agents in their order."""
    agents = {role: Asked(system, number) for number, role in enumerate(roles)}
    return Program(Sequence(*roles), agents)
