"""Choose the conversation of a row that a model is to be trained on."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, takewhile
from typing import Any

from peerloom.errors import ConfigError
from peerloom.lookup.nearest import did_you_mean
from peerloom.sink.export.exporter import CommittedRows

Message = dict[str, Any]
Row = dict[str, Any]


class SkippedRow(Exception):
    """A row is not in the file; the text is the reason."""


@dataclass(frozen=True)
class Conversation:
    """Messages that end with an assistant's, and the tools that were offered to it.

    `role` is the role that was asked for, or None. `untrained` has the positions of assistant messages that
    are not to be learned: those with which the first request of the role began, such as examples.
    """

    messages: list[Message]
    tools: list[Any] = field(default_factory=list[Any])
    role: str | None = None
    untrained: frozenset[int] = frozenset()

    def to_record(self, messages: Sequence[Message] | None = None) -> dict[str, Any]:
        """Return the record with `messages`, and `tools` if there are any."""
        record: dict[str, Any] = {"messages": self.messages if messages is None else messages}
        return record | ({"tools": self.tools} if self.tools else {})

    def trained(self) -> list[int]:
        """Return the positions of the messages that are to be learned."""
        assistants = (n for n, message in enumerate(self.messages) if message["role"] == "assistant")
        return [number for number in assistants if number not in self.untrained]


def read_conversations(rows: CommittedRows, assistant: str | None) -> Iterator[tuple[Row, Conversation]]:
    """Yield each row that has a conversation, with it, or with that of each role in `assistant`.

    The others are counted as skipped.

    Raises:
        ConfigError: if no row has a turn of a role in `assistant`.
    """
    names = roles_in(assistant)
    found: set[str] = set()
    for row in rows:
        found.update(turn["agent"] for turn in row.get("turns") or ())
        for role in names or (None,):
            try:
                yield row, conversation(row, role)
            except SkippedRow as reason:
                rows.skipped[str(reason)] += 1
    check_roles("assistant", names, found)


def roles_in(assistant: str | None) -> tuple[str, ...]:
    """Return the roles in a list with commas."""
    return tuple(role.strip() for role in assistant.split(",")) if assistant else ()


def check_roles(option: str, names: Iterable[str], found: set[str]) -> None:
    """Refuse a role of which no row has a turn.

    Raises:
        ConfigError: if there is one.
    """
    known = sorted(found)
    for name in names:
        if known and name not in found:
            hint = did_you_mean(name, known, all_of=known)
            raise ConfigError(f"{option}={name}: no row has a turn of that role.{hint}")


def conversation(row: Row, role: str | None) -> Conversation:
    """Return the conversation of a row: its `messages`, or those in which a role is the assistant.

    Raises:
        SkippedRow: if there is none.
    """
    ready: Mapping[str, list[Message]] = row.get("conversations") or {}
    reason = f"no message of {role}" if role else "no assistant message"
    tools: list[Any] = row.get("tools") or []
    if role is None or (not ready and speakers(row) == {role}):
        messages = _ended(row.get("messages") or [], reason)
    elif role in ready:
        messages = _ended(ready[role], reason)
    else:
        exchanges = [found for turn in turns_of(row, role) if (found := exchange(turn))]
        if not exchanges:
            raise SkippedRow(f"no recorded call of {role}")
        prompt, answer, tools = exchanges[-1]
        messages = _ended([*prompt, *answer], reason)
    return Conversation(messages, tools, role, _untrained(row, role, messages))


def exchange(turn: Row) -> tuple[list[Message], list[Message], list[Any]] | None:
    """Return the messages that the model of a turn was given, those that it answered, and its tools.

    Replies that the agent refused are left out, with the requests to correct them; calls of tools stay. None
    stands for a turn without a recorded reply.
    """
    calls = [call for call in turn.get("calls") or () if "request" in call]
    if not calls or "error" in calls[-1]["reply"]:
        return None
    first, last = calls[0]["request"], calls[-1]["request"]
    prompt: list[Message] = first["messages"]
    rest: list[Message] = last["messages"][len(prompt) :]
    if last["messages"][: len(prompt)] != prompt:
        prompt, rest = last["messages"], []
    elif not any(message["role"] == "tool" for message in rest):
        rest = []
    made: Message | None = turn.get("message")
    answer = made if made and made["role"] == "assistant" else reply_message(calls[-1]["reply"])
    return prompt, [*rest, answer], last.get("tools") or []


def _untrained(row: Row, role: str | None, messages: list[Message]) -> frozenset[int]:
    """Return the positions of the assistant messages with which the first request of a role began."""
    turns = turns_of(row, role) if role else [turn for turn in row.get("turns") or () if _speaks(turn)]
    if not turns or not turns[0].get("calls"):
        return frozenset()
    request: list[Message] = turns[0]["calls"][0]["request"]["messages"]
    same = takewhile(lambda pair: pair[1] == pair[2], zip(count(), request, messages[:-1], strict=False))
    return frozenset(number for number, message, _ in same if message["role"] == "assistant")


def turns_of(row: Row, role: str) -> list[dict[str, Any]]:
    """Return the turns of a role."""
    return [turn for turn in row.get("turns") or () if turn["agent"] == role]


def speakers(row: Row) -> set[str]:
    """Return the roles whose turns have an assistant message."""
    return {turn["agent"] for turn in row.get("turns") or () if _speaks(turn)}


def _speaks(turn: Row) -> bool:
    message = turn.get("message")
    return bool(message) and message["role"] == "assistant"


def reply_message(reply: Mapping[str, Any]) -> Message:
    """Return the message of a recorded reply."""
    calls = reply.get("tool_calls")
    message: Message = {"role": "assistant", "content": reply.get("text") or ""}
    return message | ({"tool_calls": calls} if calls else {})


def _ended(messages: Sequence[Message], reason: str) -> list[Message]:
    kept = list(messages)
    while kept and kept[-1]["role"] != "assistant":
        kept.pop()
    if not kept:
        raise SkippedRow(reason)
    return kept
