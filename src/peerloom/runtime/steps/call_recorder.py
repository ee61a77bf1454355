"""Record the calls that a turn makes of models."""

import copy
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from peerloom.runtime.steps.messages import is_plain_message
from peerloom.services.llm.base import ChatReply, ChatRequest, EmbedReply, EmbedRequest
from peerloom.sink.calls.requests import RowRequests
from peerloom.sink.calls.stored import add_turn
from peerloom.task import ModelCall, Task, Usage

_FIELDS = (
    *("max_tokens", "temperature", "top_p", "stop", "choices", "schema", "tools", "tool_choice"),
    *("top_logprobs", "seed"),
)
_NOT_PLAIN = (TypeError, OverflowError, ValueError, RecursionError)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


MOST_KEPT = 16_384
"""The most characters of requests that are kept with a task, so as not to decode them for its next ones."""


class CallRecorder:
    """Records the calls of one turn of a task."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._row: RowRequests | None = None
        self._requests: list[bytes] = []
        self._replies: list[dict[str, Any]] = []
        self._usages: list[Usage] = []

    def begin(self, request: ChatRequest | EmbedRequest) -> int:
        """Record a request before it is sent, and return its number; -1 if it cannot be encoded."""
        row = self._row or self._opened()
        self._row = None
        try:
            self._requests.append(_encode(row.store(self._task.next_role, _request_object(request))))
        except _NOT_PLAIN:
            return -1
        row.texts.forget_input()  # thousands of tasks wait for their replies at the same time
        self._row = row
        self._replies.append({})
        self._usages.append(Usage())
        return len(self._requests) - 1

    def _opened(self) -> RowRequests:
        """Return the requests of the row so far."""
        task, role = self._task, self._task.next_role
        row = task.take_kept()
        # It is ahead of the task if a step is executed again.
        if not isinstance(row, RowRequests) or row.texts.turns > len(task.turns) or self._requests:
            row = RowRequests(lambda: task.input)
        row.texts.input = lambda: task.input
        for turn in task.turns[row.texts.turns :]:
            add_turn(row, turn, role)
        for earlier in self._requests:
            row.restore(role, _decode(earlier))
        return row

    def answered(self, number: int, reply: ChatReply | EmbedReply) -> None:
        """Record the reply to a request."""
        if number >= 0:
            self._replies[number] = _reply_object(reply)
            self._usages[number] = reply.usage

    def failed(self, number: int, error: Exception) -> None:
        """Record that a call has raised an error."""
        if number >= 0:
            self._replies[number] = {"error": str(error)}

    def calls(self, message: Mapping[str, Any] | None) -> tuple[ModelCall, ...]:
        """Return the calls of the turn, whose message is given."""
        content = message.get("content") if isinstance(message, Mapping) else None
        replies = [*self._replies]
        if replies and isinstance(content, str) and content:
            replies[-1] = _without_content(replies[-1], content)
        calls = [
            ModelCall(msgspec.Raw(request), msgspec.Raw(_encode(reply)), usage)
            for request, reply, usage in zip(self._requests, replies, self._usages, strict=True)
        ]
        self._keep(content)
        return tuple(calls)

    def _keep(self, content: Any) -> None:
        """Leave the requests with the task, which the next turn of this process then need not decode."""
        row, self._row = self._row, None
        if row is not None and row.is_complete and row.characters <= MOST_KEPT:
            row.texts.add_turn(content)
            self._task.keep(row)


def _without_content(reply: dict[str, Any], content: str) -> dict[str, Any]:
    """Return a reply without the part of its text that is the content of the turn's message."""
    before, found, after = reply.get("text", "").partition(content)
    if not found:
        return reply
    return {**{name: value for name, value in reply.items() if name != "text"}, "around": [before, after]}


def _request_object(request: ChatRequest | EmbedRequest) -> dict[str, Any]:
    if isinstance(request, EmbedRequest):
        return {"messages": [], "texts": list(request.texts), "dimensions": request.dimensions}
    item: dict[str, Any] = {"messages": [_copy(message) for message in request.messages]}
    for name in _FIELDS:
        value: Any = getattr(request, name)
        if value is not None and value not in ((), ""):
            item[name] = list(cast("tuple[Any, ...]", value)) if isinstance(value, tuple) else value
    return item


def _copy(message: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a message, which its agent may change for its next request."""
    return message.copy() if is_plain_message(message) else copy.deepcopy(message)


def _reply_object(reply: ChatReply | EmbedReply) -> dict[str, Any]:
    if isinstance(reply, EmbedReply):
        return {"vectors": len(reply.vectors), "model": reply.model}
    item: dict[str, Any] = {"text": reply.text, "finish_reason": reply.finish_reason, "model": reply.model}
    for name in ("tool_calls", "reasoning", "fingerprint"):
        if value := getattr(reply, name):
            item[name] = value
    return item
