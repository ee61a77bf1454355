import threading
from functools import partial
from typing import Any

import pytest

from peerloom import FunctionAgent, LLMAgent, Sequence
from peerloom.runtime.engines.ray.pickling import find_unpicklable
from peerloom.runtime.program import Program
from peerloom.task import Task

LOCK = threading.Lock()


class Client:
    def __init__(self) -> None:
        self.pools = [{"spare": 1}, {"lock": threading.Lock()}]


class Holder:
    def __init__(self) -> None:
        self.client = Client()

    async def act(self, task: Task, services: Any) -> Any:
        raise NotImplementedError


class Refuses:
    def __reduce__(self) -> Any:
        raise RuntimeError("never")


def closing_over(lock: object) -> Any:
    def fn(task: Task) -> bool:
        return lock is None

    return fn


@pytest.mark.parametrize(
    ("agent", "found"),
    [
        (LLMAgent("Write."), ""),
        (Holder(), "agents['b'].client.pools[1]['lock'], a lock"),
        (FunctionAgent(closing_over(threading.Lock())), "agents['b']._fn -> lock, a lock"),
        (FunctionAgent(partial(closing_over, Refuses())), "agents['b']._fn, a partial"),
        (FunctionAgent(closing_over([Refuses()])), "agents['b']._fn -> lock[0], a Refuses"),
    ],
)
def test_the_attribute_is_named(agent: Any, found: str) -> None:
    program = Program(Sequence("a", "b"), {"a": LLMAgent("Write."), "b": agent})
    assert find_unpicklable(program) == found


def test_what_belongs_to_no_agent_is_named_too() -> None:
    program = Program(Sequence("a"), {"a": LLMAgent("Write.")}, check_row=closing_over(threading.Lock()))
    assert find_unpicklable(program) == "check_row -> lock, a lock"
