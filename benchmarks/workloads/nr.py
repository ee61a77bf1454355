"""`nr`: a document is filtered, marked and made a question of, three calls of the model.

70 % stop at the first one, and replies are as long as those of a real model, so some take many times longer
than most.
"""

from collections.abc import Sequence as List
from random import Random
from typing import Any

from benchmarks.workloads.base import Rows, Workload
from benchmarks.workloads.mini_coral import SPEAKER
from peerloom.agents.base import Services
from peerloom.runtime.program import Program
from peerloom.services.llm.base import ChatRequest
from peerloom.services.llm.simulated.prose import prose
from peerloom.task import End, Task, Turn
from peerloom.workflow import Sequence

REPLY_TOKENS = (
    *(20, 28, 32, 34, 35, 37, 39, 41, 43, 45, 46, 47, 49, 50, 51, 52),
    *(54, 55, 57, 60, 61, 62, 64, 65, 67, 69, 71, 71, 74, 75, 78, 80),
    *(81, 84, 87, 88, 90, 92, 95, 98, 99, 102, 106, 109, 112, 117, 123, 128),
    *(133, 138, 147, 159, 168, 187, 210, 233, 290, 370, 781, 1079, 1294, 1618, 2040, 2589),
)
"""Lengths of a real model's replies to a thousand multiple-choice questions, at 64 quantiles, in tokens."""
TOKENS_PER_SECOND = 200.0  # of one reply
KEPT = 0.3  # of the documents
DOCUMENT = 2_000  # characters
LONG = 4_096  # tokens of a reply, unless the call asks for less


def documents(count: int) -> Rows:
    """Yield documents, each with its fate and the lengths of its replies."""
    for number in range(count):
        rng = Random(number)
        yield {
            "text": prose(DOCUMENT, number),
            "keep": rng.random() < KEPT,
            "tokens": [rng.choice(REPLY_TOKENS) for _ in range(3)],
        }


class Asked:
    """Makes one of the three calls; the row says how long its reply is, and whether it passes the filter.

    Args:
        system: the system message.
        number: which of the calls.
    """

    def __init__(self, system: str, number: int) -> None:
        self._system = system
        self._number = number

    async def act(self, task: Task, services: Services) -> Turn:
        """Ask the model, and end the task if the filter drops it."""
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
    """Return the three agents in their order."""
    agents = {role: Asked(system, number) for number, role in enumerate(roles)}
    return Program(Sequence(*roles), agents)


NR = Workload(
    "nr",
    documents,
    lambda rows: sum(3 if row["keep"] else 1 for row in rows),
    {"tokens": LONG, "tokens_per_second": TOKENS_PER_SECOND},
    {"system": SPEAKER, "roles": ["filter", "score", "question"]},
)
