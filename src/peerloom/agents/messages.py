"""Build the chat messages of a task from the point of view of the acting role."""

from collections.abc import Sequence
from typing import Any, cast

from peerloom.task import Task

Message = dict[str, Any]


def dialogue(task: Task) -> list[Message]:
    """Return the turns so far as messages: those of the acting role as assistant, all others as user.

    Includes the acting role's tool calls and their results, but not those of other roles.
    """
    own_calls: set[str] = set()
    messages: list[Message] = []
    for turn in task.turns:
        message = turn.message or {}
        calls = cast("list[dict[str, Any]]", message.get("tool_calls") or [])
        if message.get("role") == "tool":
            if message.get("tool_call_id") in own_calls:
                messages.append(message)
        elif turn.agent == task.next_role and calls:
            own_calls.update(str(call.get("id")) for call in calls)
            messages.append({**message, "role": "assistant"})
        elif turn.text:
            role = "assistant" if turn.agent == task.next_role else "user"
            messages.append({"role": role, "content": turn.text})
    return messages


def call_ids(task: Task) -> set[str]:
    """Return the ids of all tool calls in a task."""
    messages = (turn.message or {} for turn in task.turns)
    calls = [call for each in messages for call in cast("list[dict[str, Any]]", each.get("tool_calls") or [])]
    return {str(call.get("id")) for call in calls}


def merge(messages: Sequence[Message]) -> list[Message]:
    """Merge adjacent messages of the same role, as many chat templates require.

    Messages with tool calls, and tool results, are not merged.
    """
    merged: list[Message] = []
    for message in messages:
        if merged and _can_merge(merged[-1], message):
            content = _join(merged[-1].get("content") or "", message.get("content") or "")
            merged[-1] = {"role": message.get("role"), "content": content}
        elif message.get("content") or message.get("tool_calls"):
            merged.append(message)
    return merged


def _can_merge(before: Message, message: Message) -> bool:
    role = message.get("role")
    return role == before.get("role") != "tool" and "tool_calls" not in before and "tool_calls" not in message


def _join(first: Any, second: Any) -> Any:
    """Join two contents: texts into one text, and anything else into a list of parts."""
    if isinstance(first, str) and isinstance(second, str):
        return "\n\n".join(part for part in (first, second) if part)
    return [*_parts(first), *_parts(second)]


def _parts(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, list):
        return cast("list[dict[str, Any]]", content)
    return [{"type": "text", "text": content}] if content else []
