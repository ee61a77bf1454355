"""Write the calls of turns to rows, and restore them."""

from collections.abc import Mapping
from typing import Any

import msgspec

from peerloom.sink.calls.requests import RowRequests
from peerloom.task import ModelCall, Turn, Usage

_OF_TURN = ("finish_reason", "model")

_decode = msgspec.msgpack.Decoder().decode


def call_objects(turn: Turn) -> list[dict[str, Any]]:
    """Return the calls of a turn as they are stored in a row."""
    return [_call_object(call, turn) for call in turn.calls]


def restore_calls(row: dict[str, Any]) -> None:
    """Replace the stored calls of a row by full ones, in place.

    Raises:
        LookupError, TypeError: if the row is damaged.
    """
    if not any("calls" in turn for turn in row.get("turns", ())):
        return
    requests = RowRequests(lambda: row["input"])
    for turn in row["turns"]:
        for call in turn.get("calls", ()):
            call["request"] = requests.restore(turn["agent"], call["request"])
            call["reply"] = _full_reply(call["reply"], turn)
            if "usage" in turn:
                call.setdefault("usage", turn["usage"])
        requests.texts.add_turn(turn["message"].get("content") if "message" in turn else None)


def _call_object(call: ModelCall, turn: Turn) -> dict[str, Any]:
    """Return a call without the parts that its turn has too."""
    reply = _decode(call.reply)
    for name in _OF_TURN:
        if reply.get(name) == getattr(turn, name):
            del reply[name]
    stored = {"request": _decode(call.request), "reply": reply}
    if call.usage != turn.usage:
        stored["usage"] = usage_object(call.usage)
    return stored


def usage_object(usage: Usage) -> dict[str, Any]:
    """Return a usage as it is written in rows."""
    item: dict[str, Any] = {
        "prompt": usage.prompt,
        "completion": usage.completion,
        "cached": usage.cached,
        "calls": usage.calls,
    }
    if usage.usd:
        item["usd"] = float(f"{usage.usd:.12g}")  # drop the rounding errors of the sum
    return item


def _full_reply(reply: dict[str, Any], turn: Mapping[str, Any]) -> dict[str, Any]:
    around = reply.pop("around", None)
    if around is not None:
        reply = {"text": turn["message"]["content"].join(around), **reply}
    if "error" not in reply:
        for name in _OF_TURN:
            if name in turn:
                reply.setdefault(name, turn[name])
    return reply


def add_turn(row: RowRequests, turn: Turn, role: str) -> list[dict[str, Any]]:
    """Add a turn to its row: its text, and the requests that are needed for further ones of a role.

    Returns:
        The requests of the turn in full, if it is one of that role.
    """
    requests: list[dict[str, Any]] = []
    for call in turn.calls:
        if turn.agent == role or not row.has(turn.agent):
            requests.append(row.restore(turn.agent, _decode(call.request)))
        else:
            row.is_complete = False
    row.texts.add_turn((turn.message or {}).get("content"))
    return requests
