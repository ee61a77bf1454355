"""Store the requests of a task's calls as differences from the texts and requests that its row has already.

A row has its input, its turns, and their calls, oldest first. A request has only the messages that differ
from those of its base, the request before it of the same role; a text refers to texts of the input, of
earlier turns, and of the first requests of the roles. So a dialogue grows by its new texts per turn.

A stored request is an object with the fields of the request that differ from those of its base, null for one
that is absent, and:

- `keep`: the number of first messages that are those of the base;
- `messages`: the others. A number stands for that message of the base. A `content` that refers to texts is a
  list of texts and references, to be joined (`texts.Part`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from peerloom.sink.calls.texts import SHORTEST, RowTexts

_NOTHING: dict[str, Any] = {"messages": []}
_OF_STORAGE = ("keep", "messages")


class RowRequests:
    """The requests of a row so far.

    Attributes:
        texts: the texts that they may refer to.
        is_complete: whether no request has been skipped.
        characters: the length of all texts that have been stored.

    Args:
        input: returns the input of the task; it is called when its texts are needed.
    """

    def __init__(self, input: Callable[[], Any]) -> None:
        self.texts = RowTexts(input)
        self.is_complete = True
        self.characters = 0
        self._newest: dict[str, dict[str, Any]] = {}

    def has(self, role: str) -> bool:
        """Return whether a role has made a request."""
        return role in self._newest

    def store(self, role: str, request: dict[str, Any]) -> dict[str, Any]:
        """Return a request as it is stored, and add it.

        `request` has `messages` and other fields that are JSON values; it must not be changed afterwards.
        """
        earlier = self._newest.get(role, _NOTHING)
        stored: dict[str, Any] = {}
        known = earlier["messages"]
        keep = _common(known, request["messages"])
        if keep:
            stored["keep"] = keep
        stored["messages"] = [
            self._store_message(message, known, role not in self._newest)
            for message in request["messages"][keep:]
        ]
        for name in (*request, *(name for name in earlier if name not in request)):
            if name != "messages" and earlier.get(name) != request.get(name):
                stored[name] = request.get(name)
        self._newest[role] = request
        return stored

    def restore(self, role: str, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Return a stored request in full, and add it.

        Raises:
            LookupError: if it refers to a text or request that the row does not have.
        """
        is_first = role not in self._newest
        base = self._newest.get(role, _NOTHING)
        known = base["messages"]
        request: dict[str, Any] = {"messages": known[: stored.get("keep", 0)]}
        request["messages"] += [
            known[message] if isinstance(message, int) else self._restore_message(message, is_first)
            for message in stored["messages"]
        ]
        changed = {name: value for name, value in stored.items() if name not in _OF_STORAGE}
        for name, value in {**base, **changed}.items():
            if name != "messages" and value is not None:
                request[name] = value
        self._newest[role] = request
        return request

    def _store_message(
        self, message: dict[str, Any], known: Sequence[Any], is_first: bool
    ) -> dict[str, Any] | int:
        content = message.get("content")
        if isinstance(content, str):
            if len(content) >= SHORTEST and message in known:
                return known.index(message)
            self.characters += len(content)
            return {**message, "content": self.texts.shorten(content, is_first=is_first)}
        return {"raw": message} if _are_parts(content) or "raw" in message else message

    def _restore_message(self, message: dict[str, Any], is_first: bool) -> dict[str, Any]:
        content = message.get("content")
        if isinstance(content, str) or _are_parts(content):
            text = self.texts.restore(cast("Any", content), is_first=is_first)
            return {**message, "content": text}
        return cast("dict[str, Any]", message.get("raw", message))


def _are_parts(content: Any) -> bool:
    """Return whether a content is a list of texts and references, and not of OpenAI's content parts."""
    if not content or not isinstance(content, list):
        return False
    return all(isinstance(each, str | int | list) for each in cast("list[Any]", content))


def _common(first: Sequence[Any], second: Sequence[Any]) -> int:
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count
