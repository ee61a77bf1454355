import asyncio
from functools import partial
from typing import Any

import msgspec
import pytest

from peerloom.agents.base import Agent, Services
from peerloom.agents.function import FunctionAgent
from peerloom.errors import LLMUnavailable, OutputTruncated
from peerloom.protocol.leases.holder import Fenced
from peerloom.protocol.leases.messages import FENCED, Refused
from peerloom.runtime.steps.executor import StepExecutor
from peerloom.runtime.steps.recorded_calls import digest_of, save
from peerloom.services.base import ConnectedService
from peerloom.services.llm.base import ChatReply, ChatRequest
from peerloom.task import End, Header, SavedCall, Task, TaskId, Turn, Usage, new_task
from peerloom.workflow import Sequence, Workflow


class TwoCalls:
    async def act(self, task: Task, services: Services) -> list[Turn]:
        for _ in range(2):
            await services.llm.chat(ChatRequest(messages=[]))
        return [Turn("", value="thought"), Turn("", {"role": "assistant", "content": "said"}, value="said")]


class Model:
    async def chat(self, request: ChatRequest) -> ChatReply:
        return ChatReply(text="hi", usage=Usage(10, 5, 2, 1), model="m", finish_reason="stop")

    async def close(self) -> None: ...


def stage(agent: Agent, workflow: Workflow | None = None) -> StepExecutor:
    return StepExecutor(workflow or Sequence("a", "b"), {"a": agent, "b": agent}, Model())


def task() -> Task:
    return new_task(Header(TaskId(0, 0, 0), 1), {}, seed=1).with_next("a")


async def test_turns_are_filled_in_and_usage_counts_once() -> None:
    made = stage(TwoCalls())
    after = await made.step(task())
    first, last = after.turns
    assert (first.agent, first.usage) == ("a", Usage())
    assert (last.agent, last.model, last.usage) == ("a", "m", Usage(20, 10, 4, 2))
    assert last.started > 0 and last.seconds > 0
    assert after.next_role == "b"
    assert after.header.hop == 1
    assert (made.tallies["a"].turns, made.tallies["a"].calls) == (1, 2)


class Deaf(FunctionAgent):
    async def act(self, task: Task, services: Services) -> Turn:
        return Turn("", value="mine")


async def test_a_function_acts_at_once_and_one_that_waits_is_awaited() -> None:
    async def later(task: Task) -> int:
        return 8

    begun = stage(FunctionAgent(lambda task: 7)).begin(task())
    assert isinstance(begun, Task) and begun.value("a") == 7
    for waits in (FunctionAgent(later), FunctionAgent(partial(later))):
        begun = stage(waits).begin(task())
        assert not isinstance(begun, Task)
        assert (await begun).value("a") == 8


async def test_an_agent_that_acts_in_its_own_way_is_asked_to() -> None:
    assert (await stage(Deaf(lambda task: "inherited")).step(task())).value("a") == "mine"


def raising(error: Exception) -> FunctionAgent:
    def fail(_: Task) -> None:
        raise error

    return FunctionAgent(fail)


@pytest.mark.parametrize(
    ("error", "outcome", "reason", "detail"),
    [
        (LLMUnavailable("gone"), "failed", "llm_unavailable", "gone"),
        (OutputTruncated("long"), "truncated", "max_tokens", "long"),
        (KeyError("x"), "failed", "agent_error", "a: KeyError: 'x' (test_executor.py:78)"),
    ],
)
async def test_what_an_agent_raises_ends_its_task(
    error: Exception, outcome: str, reason: str, detail: str
) -> None:
    after = await stage(raising(error)).step(task())
    assert after.end is not None
    assert (after.end.outcome, after.end.reason, after.end.detail) == (outcome, reason, detail)


async def test_an_agent_that_returns_no_turn_is_at_fault() -> None:
    class Silent:
        async def act(self, task: Task, services: Services) -> list[Turn]:
            return []

    after = await stage(Silent()).step(task())
    assert after.end is not None and after.end.reason == "agent_error"


async def test_a_workflow_that_raises_ends_the_task() -> None:
    def broken(_: Task) -> str:
        raise ValueError("no result")

    after = await stage(TwoCalls(), Sequence("a", result=broken)).step(task())
    assert after.end is not None
    assert (after.end.reason, after.end.detail) == (
        "workflow_error",
        "ValueError: no result (test_executor.py:110)",
    )
    assert len(after.turns) == 2


async def test_an_agent_ends_its_task() -> None:
    agent = FunctionAgent(lambda task: Turn("", value=0.2, end=End("filtered", "low_score")))
    after = await stage(agent).step(task())
    assert after.end == End("filtered", "low_score")
    assert after.next_role == ""


class Questions:
    """Asks three things, two of them the same."""

    async def act(self, task: Task, services: Services) -> Turn:
        texts = [(await services.llm.chat(question(text))).text for text in ("x", "x", "y")]
        return Turn("", value=texts)


def question(text: str) -> ChatRequest:
    return ChatRequest(messages=[{"role": "user", "content": text}])


def sent(request: ChatRequest) -> ChatRequest:
    """The request of role `a` as it reaches the model."""
    return msgspec.structs.replace(request, session="0-0-0", role="a")


async def test_calls_of_an_earlier_attempt_are_not_asked_again() -> None:
    paid: list[tuple[Header, bytes]] = []
    known = save(
        digest_of(sent(question("x"))), ChatReply(text="known", usage=Usage(7, 1, 0, 1), model="old")
    )
    assert known is not None
    before = msgspec.structs.replace(task(), calls=[known])
    made = StepExecutor(
        Sequence("a", "b"),
        {"a": Questions(), "b": Questions()},
        Model(),
        lambda header, call: paid.append((header, call.digest)),
    )
    after = await made.step(before)
    assert after.turns[0].value == ["known", "hi", "hi"]
    assert after.turns[0].usage == Usage(27, 11, 4, 3)
    assert paid == [(before.header, digest_of(sent(question(text)))) for text in "xy"]
    assert after.calls == []


class Chatty:
    """Goes on with the very list that it has sent, as many loops do."""

    async def act(self, task: Task, services: Services) -> Turn:
        messages = [{"role": "user", "content": "begin"}]
        for _ in range(2):
            reply = await services.llm.chat(ChatRequest(messages=messages))
            messages.append({"role": "assistant", "content": reply.text})
        return Turn("", value=len(messages))


async def test_a_call_is_known_by_what_was_asked_then() -> None:
    paid: list[SavedCall] = []
    made = StepExecutor(Sequence("a"), {"a": Chatty()}, Model(), lambda _, call: paid.append(call))
    await made.step(task())
    first = [{"role": "user", "content": "begin"}]
    second = [*first, {"role": "assistant", "content": "hi"}]
    requests = [sent(ChatRequest(messages=messages)) for messages in (first, second)]
    assert [call.digest for call in paid] == [digest_of(request) for request in requests]


async def test_while_a_model_thinks_the_row_is_not_held_decoded() -> None:
    held: list[bool] = []
    asked = new_task(Header(TaskId(0, 0, 0), 1), {"text": "long"}, seed=1).with_next("a")

    class Looking(Model):
        async def chat(self, request: ChatRequest) -> ChatReply:
            held.append("input" in vars(asked))
            return await super().chat(request)

    class UsageReport:
        async def act(self, task: Task, services: Services) -> Turn:
            before = task.input["text"]
            await services.llm.chat(ChatRequest(messages=[]))
            return Turn("", value=[before, task.input["text"]])

    after = await StepExecutor(Sequence("a"), {"a": UsageReport()}, Looking()).step(asked)
    assert held == [False]
    assert after.value("a") == ["long", "long"]


class FencedService:
    """A service that knows a newer copy of every task."""

    per_task = None

    async def send(self, request: Any, place: str) -> Refused:
        return Refused(FENCED)

    async def close(self) -> None: ...


class Grouping:
    """Calls a service in a group, and catches what comes."""

    def __init__(self, *, catches: bool) -> None:
        self.catches = catches

    async def act(self, task: Task, services: Services) -> Turn:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(services["store"].call(1))
        except BaseException:
            if not self.catches:
                raise
        return Turn("", value="done")


@pytest.mark.parametrize("catches", [True, False])
async def test_an_agent_cannot_go_on_with_an_obsolete_copy(catches: bool) -> None:
    services = {"store": ConnectedService("stateful", FencedService())}
    agents = {"a": Grouping(catches=catches)}
    executor = StepExecutor(Sequence("a"), agents, Model(), services=services)
    with pytest.raises(Fenced):
        await executor.step(task())
    assert executor.errors.read() == []
