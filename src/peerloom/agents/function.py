"""An agent that is a plain Python function of the task: checks, lookups, scores, filters."""

import inspect
from collections.abc import Callable
from typing import Any, Literal, cast

from peerloom.agents.base import Services
from peerloom.task import Task, Turn


class FunctionAgent:
    """Acts by calling `fn(task)`, which may be async.

    Whatever JSON value it returns becomes the turn's `value`; a `Turn`, or a list of them, is taken as
    it is, so a function ends its task with `Turn(agent="", end=End("filtered", "too_short"))`.

    Args:
        fn: must be importable by name where the agent travels to other processes.
        say: the chat role under which a string it returns is also said aloud, or None to say nothing.
    """

    def __init__(self, fn: Callable[[Task], Any], *, say: Literal["assistant", "user"] | None = None) -> None:
        self._fn = fn
        self._say = say

    async def act(self, task: Task, services: Services) -> Turn | list[Turn]:
        """The function's turn, or turns."""
        value = self._fn(task)
        if inspect.isawaitable(value):
            value = await value
        if isinstance(value, Turn) or _is_turns(value):
            return cast("Turn | list[Turn]", value)
        said = {"role": self._say, "content": value} if self._say and isinstance(value, str) else None
        return Turn(agent="", message=said, value=value)


def _is_turns(value: Any) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(item, Turn) for item in cast("list[Any]", value))
