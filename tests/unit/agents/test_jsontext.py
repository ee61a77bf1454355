"""JSON from a model: slips are mended, and nothing it writes takes long or breaks anything."""

import time

import orjson
import pytest

from peerloom.agents.answers import Json
from peerloom.agents.jsontext import MAX_LENGTH, MAX_REPAIR_LENGTH, read_json, repair_json
from peerloom.values import MAX_DEPTH


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1,}', {"a": 1}),
        ("{'a': 'b'}", {"a": "b"}),
        ('{a: 1, "b": True, "c": None}', {"a": 1, "b": True, "c": None}),
        ('Here you are:\n```json\n{"a": [1, 2]}\n```\nIs that right?', {"a": [1, 2]}),
        ("[1, 2, 3", [1, 2, 3]),
        ('{"a": "b" "c": 2}', {"a": "b", "c": 2}),
    ],
)
def test_slips_are_mended(text: str, value: object) -> None:
    with pytest.raises(ValueError, match="it is not JSON"):
        read_json(text)
    assert repair_json(text) == value


@pytest.mark.parametrize("text", ["Ada, 36", "", "null and void", '"a', "{}{", "[]", "\x00", "```json\n```"])
def test_what_is_no_object_or_list_is_not_made_one(text: str) -> None:
    with pytest.raises(ValueError, match="it "):
        repair_json(text)


HOSTILE = {
    "open lists": "[" * 30_000,
    "open objects": '{"a":' * 10_000,
    "lists of words": '["a" "b" ' * 5_000,
    "quotes": '{"a": [' + "'\"" * 20_000,
    "comments": '{"a":"' + "// }" * 10_000,
    "quoted words": '{"a": ' + '"x" y' * 10_000,
    "colons": "{" + "a: " * 20_000,
    "backslashes": '{"a": "' + "\\" * 60_000,
    "fences": "```json\n{" * 7_000,
    "too long": "{" + "a" * MAX_REPAIR_LENGTH,
}


@pytest.mark.parametrize("what", HOSTILE)
def test_mending_is_given_up_in_time(what: str) -> None:
    began = time.process_time()
    try:
        value = repair_json(HOSTILE[what])
    except ValueError:
        value = None
    assert time.process_time() - began < 10, "seconds; without bounds some take minutes"
    orjson.dumps(value)


@pytest.mark.parametrize("digits", [30, 400, 5_000, 60_000])
def test_numbers_that_fit_nowhere_are_no_answer(digits: int) -> None:
    text = '{"a": ' + "9" * digits + ",}"
    try:
        made = repair_json(text)["a"]
    except ValueError:
        return
    assert isinstance(made, str), "a number this long only survives as a text"


def test_deep_and_long_values_are_refused_before_they_are_checked() -> None:
    nested = {"type": "array", "items": {"$ref": "#"}}
    deep = "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)
    with pytest.raises(ValueError, match="levels deep: reply with another value"):
        Json(nested).read(deep)
    assert Json(nested).read(deep[1:-1]) is not None
    with pytest.raises(ValueError, match="not JSON"):
        Json(nested).read("[" * 100_000)
    with pytest.raises(ValueError, match=f"more than {MAX_LENGTH}: reply with less"):
        read_json('"' + "x" * MAX_LENGTH + '"')


def test_a_problem_is_told_briefly() -> None:
    with pytest.raises(ValueError, match="is not of type") as caught:
        Json({"type": "array", "items": {"type": "integer"}}).read(orjson.dumps(["x" * 50_000]).decode())
    assert len(str(caught.value)) < 1_000


def test_a_fence_of_blanks_takes_no_time() -> None:
    began = time.process_time()
    with pytest.raises(ValueError, match="not JSON"):
        Json({}).read("```" + " " * 200_000 + "x")
    assert time.process_time() - began < 5


def test_big_integers_in_an_answer_are_not_rounded():
    with pytest.raises(ValueError, match=r"it\.n: an integer of more than 64 bits: reply with another value"):
        read_json('{"n": 340282366920938463463374607431768211455}')
    with pytest.raises(ValueError, match="it cannot be repaired"):
        repair_json('{"n": 340282366920938463463374607431768211455, "x": NaN}')


def test_nan_becomes_null_and_half_a_pair_a_replacement_character():
    assert repair_json('{"x": NaN, "y": [-Infinity, 1e999]}') == {"x": None, "y": [None, None]}
    assert repair_json(r'{"smile": "\ud83d"}') == {"smile": "\ufffd"}
