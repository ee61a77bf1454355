"""Convert rows to the form in which the files of a run directory hold them, and back.

Arrow, and so `datasets`, needs one type for each field. Fields whose type may differ between rows (an input,
a value, a result) are therefore JSON text in the files, and so is `extra`, the fields of a row, turn, or
message that are not listed here. The card of the run directory names the types of all others.
"""

from typing import Any, cast

import orjson

ROW_TEXTS = ("input", "result", "conversations", "tools", "provenance")
"""The fields of a row that are JSON text."""
TURN_TEXTS = ("message", "value", "logprobs", "calls")
"""The fields of a turn that are JSON text."""
_USAGE = {
    "prompt": "int64",
    "completion": "int64",
    "cached": "int64",
    "calls": "int64",
    "usd": "float64",
}
ROW_FIELDS: dict[str, Any] = {
    "id": "string",
    "trial": "int64",
    "seed": "int64",
    "outcome": "string",
    "reason": "string",
    "input": "string",
    "messages": [
        {
            "role": "string",
            "content": "string",
            "name": "string",
            "tool_calls": [
                {"id": "string", "type": "string", "function": {"name": "string", "arguments": "string"}}
            ],
            "tool_call_id": "string",
            "extra": "string",
        }
    ],
    "conversations": "string",
    "tools": "string",
    "turns": [
        {
            "agent": "string",
            "message": "string",
            "value": "string",
            "usage": _USAGE,
            "model": "string",
            "finish_reason": "string",
            "started": "float64",
            "seconds": "float64",
            "program": "string",
            "execution": {
                "member": "string",
                "waited": "float64",
                "tries": "int64",
                "replayed": ["int64"],
            },
            "reasoning": "string",
            "logprobs": "string",
            "token_ids": ["int64"],
            "repaired": "bool",
            "calls": "string",
            "extra": "string",
        }
    ],
    "result": "string",
    "usage": _USAGE,
    "timing": {"started": "float64", "finished": "float64", "seconds": "float64", "hops": "int64"},
    "provenance": "string",
    "detail": "string",
    "error": {"role": "string", "type": "string", "message": "string", "file": "string", "line": "int64"},
    "extra": "string",
}
"""The Arrow types of the fields in the files: a list holds the type of its items, a dict those of fields."""

_TYPED_OF_ROW = ROW_FIELDS.keys() - {*ROW_TEXTS, "extra"}
_TYPED_OF_TURN = cast("list[dict[str, Any]]", ROW_FIELDS["turns"])[0].keys() - {*TURN_TEXTS, "extra"}
_MESSAGE_TEXT = frozenset({"role", "content", "name", "tool_call_id"})
_CALL = {"id", "type", "function"}
_FUNCTION = {"name", "arguments"}

JSONObject = dict[str, Any]


def to_stored(row: JSONObject) -> JSONObject:
    """Return the row as the files hold it; the row and its turns are changed.

    Raises:
        TypeError: if a value is not JSON.
    """
    _write_texts(row, ROW_TEXTS, _TYPED_OF_ROW)
    for turn in row.get("turns") or ():
        _write_texts(turn, TURN_TEXTS, _TYPED_OF_TURN)
    if messages := row.get("messages"):
        row["messages"] = [_stored_message(message) for message in messages]
    return row


def from_stored(row: JSONObject) -> JSONObject:
    """Return the row that `to_stored` was given; the argument is changed.

    Raises:
        ValueError: if a field that should be JSON text is not.
    """
    try:
        _parse_texts(row, ROW_TEXTS)
        for turn in row.get("turns", ()):
            _parse_texts(turn, TURN_TEXTS)
        for message in row.get("messages", ()):
            if "extra" in message:
                _parse_texts(message, ())
    except (TypeError, AttributeError) as error:
        raise ValueError(f"not a row: {error}") from error
    return row


def _write_texts(value: JSONObject, texts: tuple[str, ...], typed: set[str]) -> None:
    extra: JSONObject = {}
    for name in [name for name in value if name not in typed]:
        if name not in texts:
            extra[name] = value.pop(name)
        elif value[name] is not None:
            value[name] = orjson.dumps(value[name]).decode()
    if extra:
        value["extra"] = orjson.dumps(extra).decode()


def _parse_texts(stored: JSONObject, texts: tuple[str, ...]) -> None:
    for name in texts:
        text = stored.get(name)
        if text is not None:
            stored[name] = _parsed(name, text)
    text = stored.pop("extra", None)
    if text is not None:
        stored.update(_parsed("extra", text))


def _parsed(name: str, text: Any) -> Any:
    if not isinstance(text, str):
        raise ValueError(f"{name} is not JSON text, as this release writes it")
    return orjson.loads(text)


def _stored_message(message: JSONObject) -> JSONObject:
    if len(message) == 2 and type(message.get("content")) is str and type(message.get("role")) is str:
        return message  # nearly all are like this
    stored = {name: value for name, value in message.items() if _is_typed(name, value)}
    if len(stored) == len(message):
        return message
    extra = {name: value for name, value in message.items() if name not in stored}
    stored["extra"] = orjson.dumps(extra).decode()
    return stored


def _is_typed(name: str, value: Any) -> bool:
    """Return whether a field of a message has the type that Arrow is told."""
    if name in _MESSAGE_TEXT:
        return value is None or isinstance(value, str)
    return name == "tool_calls" and isinstance(value, list) and all(map(_is_call, cast("list[Any]", value)))


def _is_call(call: Any) -> bool:
    return isinstance(call, dict) and _CALL.issuperset(cast("JSONObject", call)) and _is_function(call)


def _is_function(call: Any) -> bool:
    function = call.get("function", {})
    texts = [call.get("id", ""), call.get("type", "")]
    if not (isinstance(function, dict) and _FUNCTION.issuperset(cast("JSONObject", function))):
        return False
    return all(isinstance(text, str) for text in (*texts, *cast("JSONObject", function).values()))
