"""The workload of the chaos suite: turns of one and of several calls, each call with a path of its own.

A call's session is its path, `<id>/<role>/<call>x<n>`: n equal requests are asked there at once. The words of
all earlier turns are in each request, so a history that came back changed shows as a changed request. A
turn's value lists its paths; that is what the checker counts by.
"""

import asyncio
from dataclasses import dataclass

from peerloom.agents.base import Services
from peerloom.recipes.base import Recipe
from peerloom.runtime.program import Program
from peerloom.services.llm.base import ChatReply, ChatRequest
from peerloom.task import Task, Turn
from peerloom.workflow import Sequence

STEPS: dict[str, list[dict[str, int]]] = {
    "ask": [{"only": 1}],
    "fan": [{"same": 3, "other": 1}],
    "chain": [{"first": 1}, {"pair": 2}],
    "close": [{"only": 1}],
}
"""Each role's calls: what is in one step is asked at once, so many equal requests of each name."""


class Caller:
    """Asks the calls of its role, step by step."""

    def __init__(self, steps: list[dict[str, int]], store: bool) -> None:
        self.steps = steps
        self.store = store

    async def act(self, task: Task, services: Services) -> Turn:
        await self._count(task, services, "begun")
        replies: list[ChatReply] = []
        paths: list[str] = []
        for number, step in enumerate(self.steps):
            said = " ".join(reply.text for reply in replies)
            asked = [self._request(task, number, name, equal, said) for name, equal in step.items()]
            paths += [request.session for request in asked]
            repeated = [
                request for request, equal in zip(asked, step.values(), strict=True) for _ in range(equal)
            ]
            async with asyncio.TaskGroup() as group:
                answers = [group.create_task(services.llm.chat(request)) for request in repeated]
            replies += [answer.result() for answer in answers]
        await self._count(task, services, "done")
        text = " ".join(reply.text[:80] for reply in replies)
        return Turn("", {"role": "assistant", "content": text}, value={"paths": paths})

    async def _count(self, task: Task, services: Services, name: str) -> None:
        """Count the turns in the task's store, which no death may lose or repeat."""
        if self.store:
            count = await services["store"].call({"add": name, "value": 1})
            if count != task.header.hop + 1:
                raise RuntimeError(f"{name}: {count} writes in hop {task.header.hop}")

    def _request(self, task: Task, number: int, name: str, equal: int, said: str) -> ChatRequest:
        path = f"{task.id}/{task.next_role}/{name}x{equal}"
        spoken = [turn.message for turn in task.turns if turn.message]
        asked = {"role": "user", "content": f"{path}: {task.input['topic']}. {said}"}
        seed = (task.seed + 100 * task.header.hop + number) % 2**31
        return ChatRequest(messages=[*spoken, asked], max_tokens=40, seed=seed, session=path)


@dataclass(frozen=True)
class Params:
    """`store`: whether each turn counts in a key-value store, too."""

    store: bool = False


def program(params: Params) -> Program:
    return Program(Sequence(*STEPS), {role: Caller(steps, params.store) for role, steps in STEPS.items()})


RECIPE = Recipe("chaos", "calls that can be counted", Params, program)
