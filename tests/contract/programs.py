"""Small programs for the contract tests; a module of its own, so that Ray's workers can import it."""

import asyncio
import os
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from peerloom.agents.base import Services
from peerloom.agents.function import FunctionAgent
from peerloom.agents.llm import LLMAgent
from peerloom.errors import LLMUnavailable, RowError, SourceError
from peerloom.runtime.program import Program
from peerloom.services.llm.base import ChatRequest
from peerloom.source.base import SourceRow
from peerloom.source.combined import PartsSource
from peerloom.source.memory import RowsSource
from peerloom.task import End, Task, Turn
from peerloom.workflow import END, Graph, Loop, Sequence


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

    def program_state(self) -> dict[str, Any]:
        """Nothing: a later session may take another time."""
        return {}

    async def act(self, task: Task, services: Services) -> Turn:
        await asyncio.sleep(self.seconds)
        return Turn("", value=task.header.hop)


class Gate:
    """Keeps tasks until the file that the row names is there."""

    async def act(self, task: Task, services: Services) -> Turn:
        while not Path(task.input["gate"]).exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
            await asyncio.sleep(0.01)
        return Turn("", value=task.header.hop)


def gated() -> Program:
    """Keeps every task at a gate before it talks."""
    return Program(Sequence("gate", "ask", "answer"), {"gate": Gate(), "ask": Talker(), "answer": Talker()})


def picky(task: Task) -> Any:
    """One of each way a task can end, by its number."""
    kind = task.input["n"] % 4
    if kind == 1:
        return Turn("", end=End("filtered", "dull"))
    if kind == 2:
        raise ZeroDivisionError("an agent's own mistake")
    return {"kind": kind}


class Poisonous:
    """Kills its process if the row says so, in the third turn."""

    async def act(self, task: Task, services: Services) -> Turn:
        await asyncio.sleep(0.05)
        if task.input["poison"] and task.header.hop == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return Turn("", value=task.header.hop)


def poisonous(hops: int = 4) -> Program:
    roles = [f"step{index}" for index in range(hops)]
    return Program(Sequence(*roles), {role: Poisonous() for role in roles})


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
    turns = [
        {k: v for k, v in turn.items() if k not in ("started", "seconds", "execution")}
        for turn in row["turns"]
    ]
    keep = ("id", "trial", "seed", "outcome", "reason", "input", "messages", "result", "usage")
    return {**{key: row[key] for key in keep}, "turns": turns, "hops": row["timing"]["hops"]}


class Waits:
    """Waits for something that was cancelled, as clients of other libraries may."""

    async def act(self, task: Task, services: Services) -> Turn:
        if task.input["n"] == 1:
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future
        return Turn("", value=1)


def lengthy(task: Task) -> Turn:
    """Says eight kilobytes about all that was said before."""
    before = sum(len(turn.text) for turn in task.turns) + len(task.input["document"])
    return Turn("", {"role": "user", "content": f"{before} {task.seed} " * 600})


def debate(rounds: int = 4) -> Program:
    """Three who each say a lot in every round, about a long document."""
    roles = ("opens", "objects", "sums_up")
    workflow = Loop(*roles, until=lambda task: False, max_rounds=rounds)
    return Program(workflow, {role: FunctionAgent(lengthy) for role in roles})


def ill_behaved(task: Task) -> Any:
    """One of each value that cannot travel, by the row's number."""
    values: list[Any] = [1, 2**70, object(), Turn("", message="no dict"), (1, 2)]  # type: ignore[arg-type]
    return values[task.input["n"] % len(values)]


def awkward() -> Program:
    agents = {
        "wait": Waits(),
        "say": FunctionAgent(ill_behaved),
        "last": FunctionAgent(lambda task: task.last.value),
    }
    return Program(Sequence("wait", "say", "last"), agents)


def forgetful(row: Any) -> None:
    if row["n"] == 3:
        raise KeyError("a check that fails by itself")


class LosesItsFile(RowsSource):
    """A source whose input goes away in the middle."""

    positions = None  # type: ignore[assignment]  # so that its rows are streamed

    def rows(self, partition: int, partitions: int) -> Iterator[SourceRow]:
        yield from list(super().rows(partition, partitions))[:2]
        raise SourceError("q.jsonl was there and is gone")


def unreliable(request: ChatRequest) -> str:
    """A script for a model that is out of order as long as the file named in the prompt is there."""
    words = request.messages[-1]["content"]
    number, _, broken = words.partition(" ")
    if int(number) % 3 == 0 and Path(broken).exists():
        raise LLMUnavailable("out of order")
    return f"answer to {number}"


def asking(broken: Path) -> Program:
    """Asks the `unreliable` model once; every row with n % 4 == 1 is filtered."""
    agents = {
        "ask": LLMAgent("{{ input.n }} " + str(broken)),
        "judge": FunctionAgent(dull),
    }
    return Program(Sequence("ask", "judge"), agents)


def dull(task: Task) -> Any:
    return Turn("", end=End("filtered", "dull")) if task.input["n"] % 4 == 1 else task.last.text


class OneRowThenGone(PartsSource):
    """A source whose rows can be fetched and counted, but not be read through."""

    def rows(self, partition: int, partitions: int) -> Iterator[SourceRow]:
        yield next(super().rows(partition, partitions))
        raise SourceError("q.jsonl was there and is gone")


def prompted(prompt: str = "Say something about {{ input.n }}.", last: str = "judge") -> Program:
    """Asks a model, waits for the gate of the row, and asks again."""
    agents = {"ask": LLMAgent(prompt), "gate": Gate(), last: LLMAgent(prompt)}
    return Program(Sequence(*agents), agents)


def judged(roles: tuple[str, ...]) -> Program:
    """Some agents that ask a model, one after the other, behind a gate."""
    agents = {role: Gate() if role == "gate" else LLMAgent("Judge {{ input.n }}.") for role in roles}
    return Program(Graph(roles[0], {**dict(pairwise(roles)), roles[-1]: END}), agents)
