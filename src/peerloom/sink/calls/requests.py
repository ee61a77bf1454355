"""Store the requests of a task's calls as differences from the texts and requests that its row has already.

A row has its input, its turns, and their calls, oldest first. A text in a later request refers to earlier
texts by number, so a document or a statement is stored once; a request refers to an earlier one of the same
role, and has only the messages that follow the common ones. So a dialogue grows by its new texts per turn.

A stored request is an object with the fields of the request that differ from those of its base, null for one
that is absent, and:

- `base`: the number of an earlier call of the row, if there is one of the same role;
- `keep`: the number of first messages that are those of the base;
- `messages`: the others. A `content` that refers to texts is a list of texts and numbers, to be joined.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, cast

SHORTEST = 24
"""Shorter texts are repeated rather than referred to."""

MOST_LEAVES = 16
"""The number of texts of the input that can be found within others, the first ones."""

_PARAGRAPH = "\n\n"

_NOTHING: dict[str, Any] = {"messages": []}
_OF_STORAGE = ("base", "keep", "messages")

Parts = str | list[str | int]


class RowTexts:
    """The texts of a row so far, numbered in order.

    Args:
        input: the input of the task.
    """

    def __init__(self, input: Any) -> None:
        self._texts: list[str] = []
        self._numbers: dict[str, int] = {}
        self._leaves = list(islice(_leaves(input), MOST_LEAVES))
        for leaf in self._leaves:
            self.add(leaf)
        self._last = ""

    def add(self, text: str) -> None:
        """Add a text that later ones may refer to."""
        if len(text) >= SHORTEST and text not in self._numbers:
            self._numbers[text] = len(self._texts)
            self._texts.append(text)

    def add_message(self, message: Mapping[str, Any] | None) -> None:
        """Add the text of a turn's message."""
        content = message.get("content") if message else None
        if isinstance(content, str):
            self.add(content)
            self._last = content if len(content) >= SHORTEST else ""

    def shorten(self, text: str) -> Parts:
        """Replace the known parts of a text by numbers, and add the others."""
        known = self._numbers.get(text)
        if known is not None:
            return [known]
        if not text:
            return text
        found = [each for each in dict.fromkeys((self._last, *self._leaves)) if each and each in text]
        parts = _joined(self._split(text, found))
        self._add_parts(parts)
        return text if parts == [text] else parts

    def restore(self, parts: Parts) -> str:
        """Return the text that was shortened, and add it as `shorten` did."""
        stored = [parts] if isinstance(parts, str) else parts
        text = "".join(part if isinstance(part, str) else self._texts[part] for part in stored)
        self._add_parts(stored)
        return text

    def _add_parts(self, parts: Sequence[str | int]) -> None:
        for part in parts:
            if isinstance(part, str):
                for paragraph in part.split(_PARAGRAPH):
                    self.add(paragraph)

    def _split(self, text: str, found: list[str]) -> list[str | int]:
        for position, known in enumerate(found):
            before, hit, after = text.partition(known)
            if hit:
                number = self._numbers[known]
                return [
                    *self._split(before, found[position + 1 :]),
                    number,
                    *self._split(after, found[position:]),
                ]
        parts: list[str | int] = []
        for paragraph in text.split(_PARAGRAPH):
            parts += [_PARAGRAPH, self._numbers.get(paragraph, paragraph)]
        return parts[1:]


class RowRequests:
    """The requests of a row so far, each with its role.

    Args:
        input: the input of the task.
    """

    def __init__(self, input: Any) -> None:
        self.texts = RowTexts(input)
        self._requests: list[dict[str, Any]] = []
        self._newest: dict[str, int] = {}

    def store(self, role: str, request: dict[str, Any]) -> dict[str, Any]:
        """Return a request as it is stored, and add it.

        `request` has `messages` and other fields that are JSON values; it must not be changed afterwards.
        """
        base = self._newest.get(role)
        stored: dict[str, Any] = {}
        earlier = _NOTHING
        if base is not None:
            earlier = self._requests[base]
            stored["base"] = base
        keep = _common(earlier["messages"], request["messages"])
        if keep:
            stored["keep"] = keep
        stored["messages"] = [self._store_message(message) for message in request["messages"][keep:]]
        for name in (*request, *(name for name in earlier if name not in request)):
            if name != "messages" and earlier.get(name) != request.get(name):
                stored[name] = request.get(name)
        self._add(role, request)
        return stored

    def restore(self, role: str, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Return a stored request in full, and add it.

        Raises:
            LookupError: if it refers to a text or request that the row does not have.
        """
        number: int | None = stored.get("base")
        base = _NOTHING if number is None else self._requests[number]
        new = [self._restore_message(message) for message in stored["messages"]]
        request: dict[str, Any] = {"messages": base["messages"][: stored.get("keep", 0)] + new}
        changed = {name: value for name, value in stored.items() if name not in _OF_STORAGE}
        for name, value in {**base, **changed}.items():
            if name != "messages" and value is not None:
                request[name] = value
        self._add(role, request)
        return request

    def _add(self, role: str, request: dict[str, Any]) -> None:
        self._newest[role] = len(self._requests)
        self._requests.append(request)

    def _store_message(self, message: dict[str, Any]) -> dict[str, Any]:
        content = message.get("content")
        if isinstance(content, str):
            return {**message, "content": self.texts.shorten(content)}
        return {"raw": message} if _are_parts(content) or "raw" in message else message

    def _restore_message(self, message: dict[str, Any]) -> dict[str, Any]:
        content = message.get("content")
        if isinstance(content, str) or _are_parts(content):
            return {**message, "content": self.texts.restore(cast("Parts", content))}
        return cast("dict[str, Any]", message.get("raw", message))


def _are_parts(content: Any) -> bool:
    """Return whether a content is a list of texts and numbers, and not of OpenAI's content parts."""
    if not content or not isinstance(content, list):
        return False
    return all(isinstance(each, str | int) for each in cast("list[Any]", content))


def _common(first: Sequence[Any], second: Sequence[Any]) -> int:
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count


def _joined(parts: Iterable[str | int]) -> list[str | int]:
    """Join adjacent texts, and drop empty ones."""
    joined: list[str | int] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        elif part != "":
            joined.append(part)
    return joined


def _leaves(value: Any) -> Iterator[str]:
    """Yield all long texts within a JSON value."""
    if isinstance(value, str):
        if len(value) >= SHORTEST:
            yield value
    elif isinstance(value, dict):
        for each in cast("dict[str, Any]", value).values():
            yield from _leaves(each)
    elif isinstance(value, list):
        for each in cast("list[Any]", value):
            yield from _leaves(each)
