from typing import Any

import pytest

from peerloom.errors import ConfigError
from peerloom.sink.export.where import parse_path, parse_where

ROW: dict[str, Any] = {
    "id": "0-1-0",
    "outcome": "completed",
    "input": {"level": "hard", "n": 3, "odd key": 1},
    "result": {"score": 4.5, "tags": ["a", "b"], "ok": True, "none": None},
    "turns": [{"agent": "writer"}, {"agent": "judge", "value": 4}],
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('result.score >= 4 and outcome == "completed"', True),
        ("result.score > 4.5 or result.score < -1", False),
        ("not result.ok", False),
        ("result.missing >= 4", False),
        ("result.missing.deeper is None", True),
        ("result.none == null and result.ok == true", True),
        ('"a" in result.tags and "z" not in result.tags', True),
        ('input.level in ["easy", "hard"]', True),
        ('input["odd key"] == 1', True),
        ("turns[-1].value == 4 and turns[9].value == None", True),
        ("1 < input.n < 4", True),
        ("len(turns) == 2 and len(result.missing) == 0", True),
        ('"a" in result.missing', False),
    ],
)
def test_an_expression_selects_rows(text: str, expected: bool) -> None:
    assert parse_where(text)(ROW) is expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "reslt.score > 1",
            "`reslt.score > 1`, character 1: `reslt` is no field of a row. Did you mean 'result'",
        ),
        ("result.score >", "`result.score >` is no expression"),
        ("__import__('os').system('x')", r"character 1: `__import__\('os'\).* is not allowed"),
        ("outcome == 'a' and [x for x in turns]", r"character 20: `\[x for x in turns\]` is not allowed"),
        ("result.score ** 9 > 1", "is not allowed"),
        ("(lambda: 1)()", "is not allowed"),
        ("f'{id}'", "is not allowed"),
        ("b'x' == id", "is not allowed"),
        ("~trial == 1", "is not allowed"),
        ("trial trial", "is no expression at character"),
        ("", "is no expression"),
    ],
)
def test_other_expressions_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_where(text)


def test_values_that_cannot_be_compared_name_the_row() -> None:
    with pytest.raises(ConfigError, match=r"where `input.level > 3`: row 0-1-0: '>' not supported"):
        parse_where("input.level > 3")(ROW)


def test_a_path_reads_a_value() -> None:
    assert parse_path("turns[1].value")(ROW) == 4
    assert parse_path("result.tags[5]")(ROW) is None
