"""Chat messages put together: what was said so far, as each role sees it, in a shape that templates take."""

from collections.abc import Sequence
from typing import Any, cast

from peerloom.task import Task

Message = dict[str, Any]


def dialogue(task: Task) -> list[Message]:
    """What was said so far, as the role that acts now sees it: its own turns as assistant, others as user.

    Tool calls of its own, and the tools' answers to them, are part of it; those of other roles are not.
    """
    called: set[str] = set()
    messages: list[Message] = []
    for turn in task.turns:
        message = turn.message or {}
        calls = cast("list[dict[str, Any]]", message.get("tool_calls") or [])
        if message.get("role") == "tool":
            if message.get("tool_call_id") in called:
                messages.append(message)
        elif turn.agent == task.next_role and calls:
            called.update(str(call.get("id")) for call in calls)
            messages.append({**message, "role": "assistant"})
        elif turn.text:
            role = "assistant" if turn.agent == task.next_role else "user"
            messages.append({"role": role, "content": turn.text})
    return messages


def call_ids(task: Task) -> set[str]:
    """Return the ids of all tool calls of a task so far."""
    messages = (turn.message or {} for turn in task.turns)
    calls = [call for each in messages for call in cast("list[dict[str, Any]]", each.get("tool_calls") or [])]
    return {str(call.get("id")) for call in calls}


def merge(messages: Sequence[Message]) -> list[Message]:
    """The same messages with neighbours of one role made one, as many chat templates demand.

    Those that call tools, or answer for one, stay as they are.
    """
    merged: list[Message] = []
    for message in messages:
        if merged and _joins(merged[-1], message):
            joined = _joined(merged[-1]["content"], message["content"])
            merged[-1] = {"role": message["role"], "content": joined}
        elif message.get("content") or message.get("tool_calls"):
            merged.append(message)
    return merged


def _joins(before: Message, message: Message) -> bool:
    same = before["role"] == message["role"]
    return same and message["role"] != "tool" and "tool_calls" not in before and "tool_calls" not in message


def _joined(first: Any, second: Any) -> Any:
    """Two contents as one: texts as a text, else all their parts."""
    if isinstance(first, str) and isinstance(second, str):
        return "\n\n".join(part for part in (first, second) if part)
    return [*_parts(first), *_parts(second)]


def _parts(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, list):
        return cast("list[dict[str, Any]]", content)
    return [{"type": "text", "text": content}] if content else []
