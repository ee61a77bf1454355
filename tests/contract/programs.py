"""Small programs for the contract tests; a module of its own, so that Ray's workers can import it."""

import asyncio
from typing import Any

from peerloom.agents.base import Services
from peerloom.agents.function import FunctionAgent
from peerloom.errors import RowError
from peerloom.runtime.program import Program
from peerloom.services.llm.base import ChatRequest
from peerloom.task import End, Task, Turn
from peerloom.workflow import Loop, Sequence


class Talker:
    """Asks the model to go on with the conversation."""

    async def act(self, task: Task, services: Services) -> Turn:
        spoken = [turn.message for turn in task.turns if turn.message]
        opening = {"role": "user", "content": f"topic {task.input['n']}"}
        request = ChatRequest(
            messages=[opening, *spoken], seed=task.seed + task.header.hop, max_tokens=40, session=str(task.id)
        )
        reply = await services.llm.chat(request)
        return Turn("", {"role": "assistant", "content": reply.text}, value=len(reply.text))


class Pause:
    """Takes its time, so that a test can strike while tasks are in flight."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def act(self, task: Task, services: Services) -> Turn:
        await asyncio.sleep(self.seconds)
        return Turn("", value=task.header.hop)


def picky(task: Task) -> Any:
    """One of each way a task can end, by its number."""
    kind = task.input["n"] % 4
    if kind == 1:
        return Turn("", end=End("filtered", "dull"))
    if kind == 2:
        raise ZeroDivisionError("an agent's own mistake")
    return {"kind": kind}


def needs_n(row: Any) -> None:
    if "n" not in row:
        raise RowError("field 'n' is missing")


def talk() -> Program:
    agents = {"ask": Talker(), "answer": Talker(), "count": FunctionAgent(lambda task: len(task.turns))}
    workflow = Loop(
        "ask", "answer", "count", until=lambda task: task.seed % 3 == 0 and task.header.hop >= 3, max_rounds=3
    )
    return Program(workflow, agents, check_row=needs_n)


def outcomes() -> Program:
    return Program(
        Sequence("first", "second"),
        {"first": FunctionAgent(picky), "second": FunctionAgent(lambda task: 1)},
        needs_n,
    )


def slow(seconds: float = 0.05, hops: int = 4) -> Program:
    roles = [f"step{index}" for index in range(hops)]
    return Program(Sequence(*roles), {role: Pause(seconds) for role in roles})


def stable(row: dict[str, Any]) -> dict[str, Any]:
    """What of a row must not depend on engine, placement or time."""
    turns = [{k: v for k, v in turn.items() if k not in ("started", "seconds")} for turn in row["turns"]]
    keep = ("id", "trial", "seed", "outcome", "reason", "input", "messages", "result", "usage")
    return {**{key: row[key] for key in keep}, "turns": turns, "hops": row["timing"]["hops"]}
