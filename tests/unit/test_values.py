"""The values that a task can carry without changing them."""

from typing import Any

import pytest

from peerloom.values import MAX_DEPTH, check, escaped, too_deep


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value",
    [None, True, -(2**63), 2**64 - 1, 0.5, "é", [1, (2, "x")], {"a": {"b c": []}}, nested(MAX_DEPTH)],
)
def test_values_that_are_kept(value: Any) -> None:
    check(value, "value")
    assert not too_deep(value)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (float("nan"), "value: nan is not JSON; use None or a string"),
        ({"a": {"b c": [1, float("-inf")]}}, "value.a['b c'][1]: -inf is not JSON; use None or a string"),
        ([{1, 2}], "value[0]: of type set, not JSON; use None, bool, int, float, str, list, or dict"),
        (b"x", "value: of type bytes, not JSON; use None, bool, int, float, str, list, or dict"),
        (2**64, "value: an integer of more than 64 bits; make it a string"),
        (-(2**63) - 1, "value: an integer of more than 64 bits; make it a string"),
        ("caf\udce9", r"value: 'caf\udce9' holds a lone surrogate"),
        ({"caf\udce9": 1}, r"value: the key 'caf\udce9' holds a lone surrogate"),
        ({"a": {1: 2}}, "value.a: a key of type int; use only strings as keys"),
    ],
)
def test_values_that_are_refused_with_the_item_named(value: Any, problem: str) -> None:
    with pytest.raises(ValueError) as refused:
        check(value, "value")
    assert str(refused.value) == problem


@pytest.mark.parametrize(
    "value", [nested(MAX_DEPTH + 1), nested(100_000), endless(), {"a": nested(MAX_DEPTH)}]
)
def test_values_that_are_nested_too_deep(value: Any) -> None:
    assert too_deep(value)
    with pytest.raises(ValueError, match="nested more than 100 levels deep") as refused:
        check(value, "value")
    assert len(str(refused.value)) < 200


def test_lone_surrogates_are_escaped() -> None:
    assert escaped("caf\udce9 é") == r"caf\udce9 é"
    escaped("\ud83d").encode()
