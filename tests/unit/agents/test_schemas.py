"""Schemas that cannot work are refused when the agent is created."""

from typing import Any

import pytest

from peerloom import LLMAgent
from peerloom.errors import ConfigError


def of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


TREE = {
    "$ref": "#/$defs/node",
    "$defs": {"node": of(children={"type": "array", "items": {"$ref": "#/$defs/node"}}, left={"$ref": "#"})},
}


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        (of(name={"$ref": "#/$defs/Nope"}), "'#/$defs/Nope' leads nowhere"),
        (of(name={"$defs": {"N": {"type": "string"}}, "$ref": "#/$defs/N"}), "'#/$defs/N' leads nowhere"),
        (
            {"$ref": "#/definitions/a", "definitions": {"a": {"$ref": "#/definitions/b"}}},
            "'#/definitions/b' leads",
        ),
        (of(name={"$ref": "https://example.invalid/s.json"}), "leads out of the schema"),
        (of(name={"$ref": "person.json"}), "'person.json' leads out of the schema"),
        (of(name={"$dynamicRef": "#nope"}), "$dynamicRef '#nope' leads nowhere"),
        ({"$ref": "#"}, "leads back to itself"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}}, "leads back to itself"),
        (
            {
                "anyOf": [{"type": "string"}, {"$ref": "#/$defs/a"}],
                "$defs": {"a": {"not": {"$ref": "#"}}},
            },
            "leads back to itself",
        ),
        (of(name={"type": "string", "pattern": r"^\p{L}+$"}), "is not a 'regex'"),
        (deep(150), "nested more than 100 levels deep"),
        (of(name={"type": "text"}), "'text' is not valid"),
    ],
)
@pytest.mark.parametrize("kind", ["schema", "tool"])
def test_a_schema_that_cannot_work_is_refused(schema: dict[str, Any], problem: str, kind: str) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    with pytest.raises(ConfigError) as refused:
        LLMAgent("Go", schema=schema) if kind == "schema" else LLMAgent("Go", tools=[tool])
    assert problem in str(refused.value)


@pytest.mark.parametrize(
    "schema",
    [
        TREE,
        of(name={"$ref": "#/$defs/N"}) | {"$defs": {"N": {"type": "string"}}},
        {
            "$id": "https://example.invalid/a",
            "$ref": "#n",
            "$defs": {"n": {"$anchor": "n", "type": "object"}},
        },
        {"$ref": "b", "$id": "https://example.invalid/a", "$defs": {"b": {"$id": "b", "type": "object"}}},
        {"$dynamicAnchor": "node", "type": "object", "properties": {"next": {"$dynamicRef": "#node"}}},
        deep(30),
        {},
    ],
)
def test_schemas_that_work(schema: dict[str, Any]) -> None:
    LLMAgent("Go", schema=schema)
