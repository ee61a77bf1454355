"""Check that the messages of a turn have the form of OpenAI's chat messages.

Conversations are made from them when the task ends, so a message that cannot be part of one fails its turn.
"""

from collections.abc import Iterable, Iterator
from typing import Any, cast

from peerloom.task import Turn

_TEXTS = ("name", "tool_call_id")


def is_plain_message(message: Any) -> bool:
    """Return whether a message has only a role and a text, as nearly all have."""
    if type(message) is not dict:
        return False
    fields = cast("dict[Any, Any]", message)
    return len(fields) == 2 and type(fields.get("role")) is type(fields.get("content")) is str


def check_turn(turn: Turn) -> None:
    """Check the message of a turn, and those before it.

    Raises:
        TypeError: if one has another form; the text names the field.
    """
    if turn.message is not None:
        _check(turn.message, "message")
    if not isinstance(cast("object", turn.context), tuple):
        raise TypeError(f"context: a {type(turn.context).__name__}; it must be a list of messages")
    check_messages(turn.context, "context")


def check_messages(messages: Iterable[object], name: str) -> None:
    """Check messages; `name` is that of their list in errors.

    Raises:
        TypeError: if one has another form; the text names the field.
    """
    for number, message in enumerate(messages):
        if not is_plain_message(message):
            _check(message, f"{name}[{number}]")


def _check(message: object, name: str) -> None:
    for path, value, kinds, expected in _parts(message, name):
        if not isinstance(value, kinds):
            raise TypeError(f"{path}: a {type(value).__name__}; it must be {expected}")


def _parts(message: Any, name: str) -> Iterator[tuple[str, Any, type | tuple[type, ...], str]]:
    """Yield the parts of a message: path, value, and the types that it may have."""
    yield name, message, dict, "a dict"
    yield f"{name}.role", message.get("role"), str, "a string"
    content = message.get("content")
    yield f"{name}.content", content, (str, list, type(None)), "a string, a list of parts, or None"
    if isinstance(content, list):
        for number, part in enumerate(cast("list[Any]", content)):
            yield f"{name}.content[{number}]", part, dict, "a dict"
    for key in _TEXTS:
        yield f"{name}.{key}", message.get(key), (str, type(None)), "a string"
    calls = message.get("tool_calls")
    yield f"{name}.tool_calls", calls, (list, type(None)), "a list of calls"
    for number, call in enumerate(calls or ()):
        yield f"{name}.tool_calls[{number}]", call, dict, "a dict"
        yield f"{name}.tool_calls[{number}].id", call.get("id", ""), str, "a string"
        yield f"{name}.tool_calls[{number}].function", call.get("function", {}), dict, "a dict"
