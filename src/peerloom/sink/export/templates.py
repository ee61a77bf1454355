"""Bring conversations into the form that chat templates expect."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import orjson

from peerloom.sink.export.conversation import Conversation, Message, SkippedRow

_OPTIONAL: dict[str, Any] = {"description": "", "parameters": {"type": "object", "properties": {}}}


def for_templates(conversation: Conversation) -> Conversation:
    """Return a conversation in the form that chat templates expect.

    That is text instead of null, arguments as objects, calls whose ids are nine letters or digits, as
    Mistral's templates require, and tools with the fields that are optional elsewhere.

    Raises:
        SkippedRow: if the arguments of a tool call are not a JSON object.
    """
    messages = [_with_objects(message) for message in conversation.messages]
    return replace(conversation, messages=messages, tools=[_described(tool) for tool in conversation.tools])


def _with_objects(message: Message) -> Message:
    changed = {**message, "content": message.get("content") or ""}
    if message.get("tool_calls"):
        changed["tool_calls"] = [_with_object(call) for call in message["tool_calls"]]
    if message.get("tool_call_id"):
        changed["tool_call_id"] = _short_id(message["tool_call_id"])
    return changed


def _with_object(call: dict[str, Any]) -> dict[str, Any]:
    function = {**call["function"], "arguments": arguments(call)}
    return {**call, "id": _short_id(call.get("id")), "function": function}


def _short_id(id: Any) -> str:
    text = str(id)
    return text if re.fullmatch("[A-Za-z0-9]{9}", text) else hashlib.blake2b(text.encode()).hexdigest()[:9]


def _described(tool: dict[str, Any]) -> dict[str, Any]:
    function: Any = tool.get("function")
    return {**tool, "function": {**_OPTIONAL, **function}} if isinstance(function, dict) else tool


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
