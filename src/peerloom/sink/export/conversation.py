"""Choose the conversation of a row that a model is to be trained on."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import orjson

from peerloom.errors import ConfigError
from peerloom.lookup.nearest import did_you_mean
from peerloom.sink.export.exporter import CommittedRows

Message = dict[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class Conversation:
    """Messages that end with an assistant's, and the tools that were offered to it."""

    messages: list[Message]
    tools: list[Any] = field(default_factory=list[Any])

    def to_record(self, messages: Sequence[Message] | None = None) -> dict[str, Any]:
        """Return the record with `messages`, and `tools` if there are any."""
        record: dict[str, Any] = {"messages": self.messages if messages is None else messages}
        return record | ({"tools": self.tools} if self.tools else {})


class SkippedRow(Exception):
    """A row is not in the file; the text is the reason."""


def read_conversations(rows: CommittedRows, assistant: str | None) -> Iterator[tuple[Row, Conversation]]:
    """Yield each row that has a conversation, with it; the others are counted as skipped.

    Raises:
        ConfigError: if no row has a turn of the role `assistant`.
    """
    roles: set[str] = set()
    for row in rows:
        roles.update(turn["agent"] for turn in row.get("turns") or ())
        try:
            yield row, conversation(row, assistant)
        except SkippedRow as reason:
            rows.skipped[str(reason)] += 1
    if assistant is not None and roles and assistant not in roles:
        known = sorted(roles)
        hint = did_you_mean(assistant, known, all_of=known)
        raise ConfigError(f"assistant={assistant}: no row has a turn of that role.{hint}")


def conversation(row: Row, assistant: str | None) -> Conversation:
    """Return the conversation of a row: its `messages`, or those in which a role is the assistant.

    Raises:
        SkippedRow: if there is none.
    """
    if assistant is None:
        return _ended(row.get("messages") or [], row.get("tools") or [], "no assistant message")
    ready: Mapping[str, list[Message]] = row.get("conversations") or {}
    reason = f"no message of {assistant}"
    if assistant in ready:
        return _ended(ready[assistant], row.get("tools") or [], reason)
    if not ready and speakers(row) == {assistant}:
        return _ended(row.get("messages") or [], row.get("tools") or [], reason)
    calls = [call for turn in turns_of(row, assistant) for call in turn.get("calls") or () if "reply" in call]
    if not calls:
        raise SkippedRow(f"no recorded call of {assistant}")
    request, reply = calls[-1]["request"], calls[-1]["reply"]
    return _ended([*request["messages"], reply_message(reply)], request.get("tools") or [], reason)


def turns_of(row: Row, role: str) -> list[dict[str, Any]]:
    """Return the turns of a role."""
    return [turn for turn in row.get("turns") or () if turn["agent"] == role]


def speakers(row: Row) -> set[str]:
    """Return the roles whose turns have an assistant message."""
    spoken = ((turn["agent"], turn.get("message")) for turn in row.get("turns") or ())
    return {agent for agent, message in spoken if message and message["role"] == "assistant"}


def reply_message(reply: Mapping[str, Any]) -> Message:
    """Return the message of a recorded reply."""
    calls = reply.get("tool_calls")
    message: Message = {"role": "assistant", "content": reply.get("text") or ""}
    return message | ({"tool_calls": calls} if calls else {})


def _ended(messages: Sequence[Message], tools: list[Any], reason: str) -> Conversation:
    kept = list(messages)
    while kept and kept[-1]["role"] != "assistant":
        kept.pop()
    if not kept:
        raise SkippedRow(reason)
    return Conversation(kept, tools)


def with_objects(messages: Iterable[Message]) -> list[Message]:
    """Return messages in the form that chat templates expect: text instead of null, arguments as objects.

    Raises:
        SkippedRow: if the arguments of a tool call are not a JSON object.
    """
    return [_with_objects(message) for message in messages]


def _with_objects(message: Message) -> Message:
    changed = {**message, "content": message.get("content") or ""}
    if message.get("tool_calls"):
        changed["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": arguments(call)}}
            for call in message["tool_calls"]
        ]
    return changed


def arguments(call: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a tool call, which are JSON text in a row.

    Raises:
        SkippedRow: if they are not a JSON object.
    """
    given: Any = call["function"].get("arguments") or {}
    try:
        value = orjson.loads(given) if isinstance(given, str) else given
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise SkippedRow("a tool call whose arguments are not a JSON object")
    return cast("dict[str, Any]", value)
