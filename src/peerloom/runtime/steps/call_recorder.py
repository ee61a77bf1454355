"""Record the calls that a turn makes of models."""

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from peerloom.services.llm.base import ChatReply, ChatRequest, EmbedReply, EmbedRequest
from peerloom.sink.calls.requests import RowRequests
from peerloom.sink.calls.stored import add_requests
from peerloom.task import ModelCall, Task, Usage

_FIELDS = (
    *("max_tokens", "temperature", "top_p", "stop", "choices", "schema", "tools", "tool_choice"),
    *("top_logprobs", "seed"),
)
_NOT_PLAIN = (TypeError, OverflowError, ValueError, RecursionError)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class CallRecorder:
    """Records the calls of one turn of a task."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._requests: list[bytes] = []
        self._replies: list[dict[str, Any]] = []
        self._usages: list[Usage] = []

    def begin(self, request: ChatRequest | EmbedRequest) -> int:
        """Record a request before it is sent, and return its number; -1 if it cannot be encoded."""
        # Built for each call and dropped: thousands of tasks wait for their replies at the same time.
        row = RowRequests(self._task.input)
        for turn in self._task.turns:
            add_requests(row, turn)
        role = self._task.next_role
        for earlier in self._requests:
            row.restore(role, _decode(earlier))
        try:
            self._requests.append(_encode(row.store(role, _request_object(request))))
        except _NOT_PLAIN:
            return -1
        self._replies.append({})
        self._usages.append(Usage())
        return len(self._requests) - 1

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
        if self._replies and isinstance(content, str) and content:
            text = self._replies[-1].get("text", "")
            before, found, after = text.partition(content)
            if found:
                del self._replies[-1]["text"]
                self._replies[-1]["around"] = [before, after]
        calls = [
            ModelCall(msgspec.Raw(request), msgspec.Raw(_encode(reply)), usage)
            for request, reply, usage in zip(self._requests, self._replies, self._usages, strict=True)
        ]
        return tuple(calls)


def _request_object(request: ChatRequest | EmbedRequest) -> dict[str, Any]:
    if isinstance(request, EmbedRequest):
        return {"messages": [], "texts": list(request.texts), "dimensions": request.dimensions}
    item: dict[str, Any] = {"messages": request.messages}
    for name in _FIELDS:
        value: Any = getattr(request, name)
        if value is not None and value not in ((), ""):
            item[name] = list(cast("tuple[Any, ...]", value)) if isinstance(value, tuple) else value
    return item


def _reply_object(reply: ChatReply | EmbedReply) -> dict[str, Any]:
    if isinstance(reply, EmbedReply):
        return {"vectors": len(reply.vectors), "model": reply.model}
    item: dict[str, Any] = {"text": reply.text, "finish_reason": reply.finish_reason, "model": reply.model}
    for name in ("tool_calls", "reasoning", "fingerprint"):
        if value := getattr(reply, name):
            item[name] = value
    return item
