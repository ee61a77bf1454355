"""Rows in the files of a run directory: one type for each field, and the same values when they are read."""

import copy
import random
from typing import Any

import orjson
import pytest

from peerloom.stored import ROW_FIELDS, from_stored, to_stored

TEXT = ("", "why?", "2024-01-02", '"quoted"', "[1, 2]", "null", "{", "\n---\n", "ü\u2028\0", "extra")


def any_json(chance: random.Random, depth: int = 3) -> Any:
    kind = chance.randrange(8 if depth else 6)
    if kind == 6:
        return [any_json(chance, depth - 1) for _ in range(chance.randrange(4))]
    if kind == 7:
        return {chance.choice(TEXT): any_json(chance, depth - 1) for _ in range(chance.randrange(4))}
    return (None, True, 2**63, -1.5, 7, chance.choice(TEXT))[kind]


def some(chance: random.Random, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: any_json(chance) for name in chance.sample(names, chance.randrange(len(names) + 1))}


def any_message(chance: random.Random) -> dict[str, Any]:
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    calls = [
        call,
        call | {"index": 0},
        {},
        {"function": None},
        {"id": None},
        "call",
        {"function": {"name": 1}},
    ]
    content = ["text", None, [{"type": "text", "text": "a"}], any_json(chance)]
    message: dict[str, Any] = {"role": "assistant", "content": chance.choice(content)}
    if chance.random() < 0.5:
        message["tool_calls"] = chance.sample(calls, chance.randrange(3))
    return message | some(chance, ("name", "tool_call_id", "extra", "audio", "content"))


def any_row(chance: random.Random) -> dict[str, Any]:
    row: dict[str, Any] = {"id": "0-1-0", "trial": 0, "outcome": "completed"}
    if chance.random() < 0.9:
        row["messages"] = [any_message(chance) for _ in range(chance.randrange(4))]
        row["turns"] = [
            {"agent": "a"} | some(chance, ("message", "value", "logprobs", "calls", "later", "extra"))
            for _ in range(chance.randrange(4))
        ]
    # A field that is null, and one that is missing, are the same to Arrow, and stay different to readers.
    return row | some(chance, ("input", "result", "conversations", "tools", "provenance", "extra", "later"))


def fits(value: Any, type: Any) -> bool:
    """Whether a value has an Arrow type, as `ROW_FIELDS` gives it."""
    if value is None:
        return True
    if isinstance(type, list):
        return isinstance(value, list) and all(fits(each, type[0]) for each in value)
    if isinstance(type, dict):
        return value.keys() <= type.keys() and all(fits(value[name], type[name]) for name in value)
    return {"string": str, "int64": int, "float64": float, "bool": bool}[type] is value.__class__


@pytest.mark.parametrize("seed", range(200))
def test_any_row_fits_the_types_and_is_read_as_it_was(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(10):
        row = any_row(chance)
        stored = orjson.loads(orjson.dumps(to_stored(copy.deepcopy(row))))
        assert fits(stored, ROW_FIELDS), stored
        assert from_stored(stored) == row


@pytest.mark.parametrize("value", ["", "null", "{}", "why?", '"'])
def test_a_text_stays_a_text(value: str) -> None:
    stored = to_stored({"input": value, "result": None})
    assert stored == {"input": orjson.dumps(value).decode(), "result": None}
    assert from_stored(stored) == {"input": value, "result": None}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"input": {"n": 1}}, "input is not JSON text"),
        ({"result": "{"}, "unexpected end of data"),
        ({"turns": [{"calls": [1]}]}, "calls is not JSON text"),
        ({"turns": [1]}, "not a row"),
        ([], "not a row"),
    ],
)
def test_other_rows_are_refused(row: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        from_stored(row)
