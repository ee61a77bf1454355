"""An agent that is a plain Python function of the task: checks, lookups, scores, filters."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Literal, cast

from peerloom.agents.base import Services
from peerloom.task import Task, Turn


class FunctionAgent:
    """Acts by calling `fn(task)`, which may be async.

    Whatever JSON value it returns becomes the turn's `value`; a `Turn`, or a list of them, is taken as
    it is, so a function ends its task with `Turn(agent="", end=End("filtered", "too_short"))`.

    Args:
        fn: pure, or asynchronous; a lambda will do. It is pickled to the peers once, with what it refers to.
        say: the chat role under which a string it returns is also said aloud, or None to say nothing.
    """

    def __init__(self, fn: Callable[[Task], Any], *, say: Literal["assistant", "user"] | None = None) -> None:
        self._fn = fn
        self._say = say

    async def act(self, task: Task, services: Services) -> Turn | list[Turn]:
        """The function's turn, or turns."""
        acted = self.at_once(task)
        return acted if isinstance(acted, Turn | list) else await acted

    def at_once(self, task: Task) -> "Turn | list[Turn] | Awaitable[Turn | list[Turn]]":
        """As `act`, in this very moment unless the function itself has to wait."""
        value = self._fn(task)
        return self._later(value) if _waits(value) else self._as_turns(value)

    async def _later(self, value: Awaitable[Any]) -> Turn | list[Turn]:
        return self._as_turns(await value)

    def _as_turns(self, value: Any) -> Turn | list[Turn]:
        if isinstance(value, Turn) or _is_turns(value):
            return cast("Turn | list[Turn]", value)
        said = {"role": self._say, "content": value} if self._say and isinstance(value, str) else None
        return Turn(agent="", message=said, value=value)


_PLAIN = frozenset((Turn, dict, list, str, int, float, bool, type(None)))


def _waits(value: Any) -> bool:
    """Whether a value is to be awaited; most are of a type that says no at once."""
    return type(value) not in _PLAIN and inspect.isawaitable(value)


def _is_turns(value: Any) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(item, Turn) for item in cast("list[Any]", value))
