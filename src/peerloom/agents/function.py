"""Define agents that are Python functions of the task: checks, lookups, scores, filters."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Literal, cast

from peerloom.agents.base import Services
from peerloom.task import Task, Turn


class FunctionAgent:
    """An agent that calls `fn(task)`, which may be asynchronous.

    A JSON value that it returns becomes the turn's `value`. A `Turn`, or a list of turns, is used unchanged;
    so a function can end its task with `Turn(agent="", end=End("filtered", "too_short"))`.

    Args:
        fn: the function; a lambda is allowed. It is pickled to the peers once, with the objects it refers to.
        chat_role: whose a returned string is in the row's conversation, `assistant` or `user`; None leaves it
            out.
    """

    def __init__(
        self, fn: Callable[[Task], Any], *, chat_role: Literal["assistant", "user"] | None = None
    ) -> None:
        self._fn = fn
        self._chat_role = chat_role

    async def act(self, task: Task, services: Services) -> Turn | list[Turn]:
        """Call the function, and return its turn or turns."""
        result = self.at_once(task)
        return result if isinstance(result, Turn | list) else await result

    def at_once(self, task: Task) -> "Turn | list[Turn] | Awaitable[Turn | list[Turn]]":
        """Call the function, and return its turn or turns, or an awaitable of them if it is asynchronous."""
        value = self._fn(task)
        return self._await_turns(value) if _is_awaitable(value) else self._as_turns(value)

    async def _await_turns(self, value: Awaitable[Any]) -> Turn | list[Turn]:
        return self._as_turns(await value)

    def _as_turns(self, value: Any) -> Turn | list[Turn]:
        if isinstance(value, Turn) or _is_turns(value):
            return cast("Turn | list[Turn]", value)
        message = None
        if self._chat_role and isinstance(value, str):
            message = {"role": self._chat_role, "content": value}
        return Turn(agent="", message=message, value=value)


_PLAIN = frozenset((Turn, dict, list, str, int, float, bool, type(None)))


def _is_awaitable(value: Any) -> bool:
    """Return whether a value is awaitable, with a fast path for common types."""
    return type(value) not in _PLAIN and inspect.isawaitable(value)


def _is_turns(value: Any) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(item, Turn) for item in cast("list[Any]", value))
