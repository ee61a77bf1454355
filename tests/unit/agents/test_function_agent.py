from typing import Any

import pytest

from peerloom.agents.base import Services
from peerloom.agents.function import FunctionAgent
from peerloom.services.llm.scripted import ScriptedService
from peerloom.task import End, Header, Task, TaskId, Turn, new_task

SERVICES = Services(ScriptedService([]).spec().connect())
TASK = new_task(Header(TaskId(0, 0, 0)), {"n": 3}, seed=1)


@pytest.mark.parametrize("value", [7, None, "text", {"a": [1]}, [], [1, 2], True])
async def test_a_value_is_returned_to_the_workflow_and_not_said(value: Any):
    turn = await FunctionAgent(lambda task: value).act(TASK, SERVICES)
    assert turn == Turn(agent="", value=value)


async def test_it_is_given_the_task_and_may_be_async():
    async def double(task: Task) -> int:
        return 2 * task.input["n"]

    assert await FunctionAgent(double).act(TASK, SERVICES) == Turn(agent="", value=6)


async def test_a_string_may_be_said_aloud():
    turn = await FunctionAgent(lambda task: "hello", chat_role="user").act(TASK, SERVICES)
    assert turn == Turn(agent="", message={"role": "user", "content": "hello"}, value="hello")
    assert await FunctionAgent(lambda task: 3, chat_role="user").act(TASK, SERVICES) == Turn(
        agent="", value=3
    )


async def test_turns_are_taken_as_they_are():
    end = Turn(agent="", value=0.1, end=End("filtered", "low_score"))
    assert await FunctionAgent(lambda task: end).act(TASK, SERVICES) is end
    several = [Turn(agent="", value=1), end]
    assert await FunctionAgent(lambda task: several).act(TASK, SERVICES) is several


async def test_what_it_raises_is_the_runtimes_to_classify():
    with pytest.raises(KeyError):
        await FunctionAgent(lambda task: task.input["absent"]).act(TASK, SERVICES)
