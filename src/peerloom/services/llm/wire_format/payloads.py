"""Decode response bodies: JSON, malformed JSON of some servers, and unrequested event streams.

Nearly all bodies are valid JSON and are parsed once. Others are repaired where that cannot change the text of
a reply: lone surrogates and bytes that are not UTF-8 become U+FFFD, NaN and infinities become null.
"""

import json
from collections.abc import Iterator
from typing import Any, cast

import orjson

from peerloom.values import MAX_DEPTH, parsed, too_deep, without_surrogates


class MalformedBody(Exception):
    """A response body of an unexpected form."""


_REPAIRABLE = 16_000_000  # maximum bytes of a body for the slower parser
_LONGEST_INTEGER = 300  # digits; orjson rejects longer ones
_BOM = b"\xef\xbb\xbf"
_DONE = "[DONE]"
_STREAM = (b"data:", b"event:", b"id:", b"retry:", b":")
_KEPT_DEPTH = MAX_DEPTH // 2


def payload_of(body: bytes) -> Any:
    """Decode a response body.

    Lists and objects that are nested too deeply are replaced by null.

    Raises:
        MalformedBody: if the body is neither JSON nor an event stream of chat completions.
    """
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        payload = _lenient(body, error)
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and too_deep(payload):
        return _pruned(payload, _KEPT_DEPTH)
    return payload


def _lenient(body: bytes, error: orjson.JSONDecodeError) -> Any:
    if len(body) > _REPAIRABLE:
        raise MalformedBody(f"not JSON: {error}") from error
    start = body.removeprefix(_BOM).lstrip()
    try:
        if start.startswith(_STREAM):
            value = _joined(start.decode(errors="replace"))
        else:
            value = parsed(start.decode(errors="replace"), _parse_integer)
        # Parsed by orjson like other bodies, so that long integers become floats.
        return orjson.loads(json.dumps(without_surrogates(value)))
    except (ValueError, RecursionError):
        raise MalformedBody(f"not JSON: {error}") from error


def _parse_integer(text: str) -> int | None:
    return int(text) if len(text) <= _LONGEST_INTEGER else None


def _pruned(value: Any, depth: int) -> Any:
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        return {key: _pruned(item, depth - 1) for key, item in items} if depth else None
    if isinstance(value, list):
        return [_pruned(item, depth - 1) for item in cast("list[Any]", value)] if depth else None
    return value


def _events(text: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of an event stream (HTML standard, section 9.2)."""
    for event in text.split("\n\n"):
        lines = [line[5:].removeprefix(" ") for line in event.split("\n") if line.startswith("data:")]
        data = "\n".join(lines).strip()
        if not data or data == _DONE:
            continue
        try:
            value = parsed(data, _parse_integer)
        except (ValueError, RecursionError) as error:
            raise MalformedBody("an event of its stream is not JSON") from error
        if isinstance(value, dict):
            yield cast("dict[str, Any]", value)


def _joined(stream: str) -> dict[str, Any]:
    """Return the chat completion assembled from OpenAI's chunks, or the chunk that reports an error."""
    stream = stream.replace("\r\n", "\n").replace("\r", "\n")
    done = any(line.startswith("data:") and line[5:].strip() == _DONE for line in stream.split("\n"))
    whole: dict[str, Any] = {}
    message: dict[str, Any] = {"role": "assistant", "content": ""}
    choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": None}
    found = False
    for chunk in _events(stream):
        if chunk.get("error"):
            return chunk
        whole |= {key: value for key, value in chunk.items() if key != "choices" and value is not None}
        for each in groups(chunk.get("choices")):
            if each.get("index") in (0, "0", None):
                found = True
                _add(choice, each)
    if not found:
        raise MalformedBody("an event stream without chat completion chunks")
    if choice["finish_reason"] is None and not done:
        raise MalformedBody("its event stream breaks off")
    return {**whole, "object": "chat.completion", "choices": [choice]}


def _add(choice: dict[str, Any], chunk: dict[str, Any]) -> None:
    """Add one chunk to the choice so far."""
    message = choice["message"]
    choice["finish_reason"] = chunk.get("finish_reason") or choice["finish_reason"]
    records = chunk.get("logprobs")
    if isinstance(records, dict):
        logged = choice.setdefault("logprobs", {"content": []})
        logged["content"] += groups(cast("dict[str, Any]", records).get("content"))
    delta = chunk.get("delta") or chunk.get("message")
    for key, value in cast("dict[str, Any]", delta if isinstance(delta, dict) else {}).items():
        if key == "tool_calls":
            for call in groups(value):
                _add_call(message.setdefault("tool_calls", []), call)
        elif key == "content" and isinstance(value, list) and isinstance(message.get(key), list):
            message[key] += value
        elif key == "content" and isinstance(value, list) and not message.get(key):
            message[key] = list(cast("list[Any]", value))
        elif isinstance(value, str) and key != "role":
            before = message.get(key)
            message[key] = (before if isinstance(before, str) else "") + value
        elif value is not None and key != "role":
            message[key] = value


def _add_call(calls: list[dict[str, Any]], part: dict[str, Any]) -> None:
    """Add a part of a tool call to the tool calls so far; without an index it continues the last one."""
    index = part.get("index")
    place = index if isinstance(index, int) else len(calls) - (not part.get("id"))
    place = max(0, min(place, len(calls)))
    if place == len(calls):
        calls.append({"type": "function", "function": {"name": "", "arguments": ""}})
    call = calls[place]
    if part.get("id"):
        call["id"] = part["id"]
    given = part.get("function")
    for key, value in cast("dict[str, Any]", given if isinstance(given, dict) else {}).items():
        if isinstance(value, str):
            before = call["function"].get(key)
            call["function"][key] = (before if isinstance(before, str) else "") + value
        elif value is not None:
            call["function"][key] = value


def groups(value: Any) -> list[dict[str, Any]]:
    """Return the objects in a list, or an empty list if the value is not a list."""
    items = cast("list[Any]", value) if isinstance(value, list) else []
    return [cast("dict[str, Any]", item) for item in items if isinstance(item, dict)]
