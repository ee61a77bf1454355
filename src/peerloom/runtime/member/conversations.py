"""Make the conversations of a finished task that a model can be trained on.

There is one for each role whose messages have the chat role `assistant`. It begins with the context of that
role: its system message, and the first user message. Messages of other roles are those of the user. As chat
templates require, adjacent messages of one role are merged, and tool calls have their results; the last
message is that of the trained role.
"""

from collections.abc import Sequence
from typing import Any, cast

import msgspec

from peerloom.agents.messages import Message, merge
from peerloom.sink.calls.requests import RowRequests
from peerloom.sink.calls.stored import add_turn
from peerloom.task import Task, Turn

_decode = msgspec.msgpack.Decoder().decode


def conversations(task: Task, turns: Sequence[Turn]) -> dict[str, list[Message]]:
    """Return the conversation of each role that speaks as the assistant, in the order in which they spoke."""
    roles = dict.fromkeys(turn.agent for turn in turns if _speaks(turn))
    return {role: _conversation(role, task, turns) for role in roles}


def offered_tools(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """Return all tools that were offered to models, each once."""
    tools: list[dict[str, Any]] = []
    for turn in turns:
        for call in turn.calls:
            if b"tools" in bytes(call.request):
                offered = cast("list[dict[str, Any]]", _decode(call.request).get("tools") or [])
                tools += [tool for tool in offered if tool not in tools]
    return tools


def _speaks(turn: Turn) -> bool:
    return turn.message is not None and turn.message.get("role") == "assistant"


def _conversation(role: str, task: Task, turns: Sequence[Turn]) -> list[Message]:
    messages: list[Message] = []
    calls: set[str] = set()
    own = 0  # the number of messages up to the last one of this role
    is_first = True
    for turn in turns:
        if turn.agent == role and (turn.context or _speaks(turn)):
            if turn.context_only:
                del messages[own:]
            context = list(turn.context)
            if is_first:
                messages[:0] = context or _first_request(task, turns, turn)
                is_first = False
            else:
                messages += context
        messages += _messages(turn, role, calls)
        if turn.agent == role:
            own = len(messages)
    messages = merge(messages)
    if any("tool_calls" in message for message in messages):
        messages = _paired(messages)
    while messages and messages[-1].get("role") != "assistant":
        messages.pop()
    return messages


def _messages(turn: Turn, role: str, calls: set[str]) -> list[Message]:
    """Return the message of a turn from the point of view of a role, if it has one."""
    message = turn.message
    if message is None:
        return []
    if message.get("role") == "tool":
        return [message] if message.get("tool_call_id") in calls else []
    if turn.agent == role and _speaks(turn):
        calls.update(_ids(message))
        return [message]
    content = message.get("content")
    return [{"role": "user", "content": content}] if content else []


def _first_request(task: Task, turns: Sequence[Turn], first: Turn) -> list[Message]:
    """Return the messages with which an agent without a context of its own has asked for its first turn."""
    if not first.calls:
        return []
    row = RowRequests(task.decode_input)
    for turn in turns:
        requests = add_turn(row, turn, first.agent)
        if turn is first:
            return cast("list[Message]", requests[-1]["messages"])
    return []


def _paired(messages: list[Message]) -> list[Message]:
    """Return the messages without calls that have no result, but for those of the last message."""
    answered = {message.get("tool_call_id") for message in messages if message.get("role") == "tool"}
    paired: list[Message] = []
    for number, message in enumerate(messages, 1):
        if number == len(messages) or all(id in answered for id in _ids(message)):
            paired.append(message)
            continue
        calls = [call for call in _calls(message) if call.get("id") in answered]
        rest = {name: value for name, value in message.items() if name != "tool_calls"}
        if calls:
            rest["tool_calls"] = calls
        if calls or rest.get("content"):
            paired.append(rest)
    return merge(paired)


def _calls(message: Message) -> list[dict[str, Any]]:
    return cast("list[dict[str, Any]]", message.get("tool_calls") or [])


def _ids(message: Message) -> list[str]:
    return [str(call.get("id")) for call in _calls(message)]
