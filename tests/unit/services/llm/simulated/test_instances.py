"""Instances follow their schema, or the schema is refused."""

from random import Random

import jsonschema
import pytest

from peerloom.services.llm.simulated.behavior import SimulatedBehavior, answer
from peerloom.services.llm.simulated.instances import UnsupportedSchema, instance
from peerloom.services.llm.simulated.request import BadRequest, read
from peerloom.services.llm.wire_format.chat import choice_schema

TREE = {
    "$defs": {
        "tree": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}},
            },
            "required": ["name", "children"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/tree",
}
LINKED = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
            "required": ["next"],
        }
    },
    "$ref": "#/$defs/node",
}
SCHEMAS = [
    {},
    {"type": "string", "minLength": 30, "maxLength": 31},
    {"type": "string", "maxLength": 2},
    {"type": "integer"},
    {"type": "integer", "minimum": 3, "maximum": 3},
    {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5},
    {"type": "integer", "minimum": 10, "multipleOf": 7},
    {"type": "integer", "maximum": -1000},
    {"type": "integer", "minimum": 0, "exclusiveMinimum": 4, "maximum": 5, "exclusiveMaximum": 90},
    {"type": "number", "exclusiveMinimum": 0, "maximum": 0.001},
    {"type": "boolean"},
    {"type": "null"},
    {"type": ["string", "null"]},
    {"enum": [1, "two", None]},
    {"const": {"k": [1]}},
    {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
    {"type": "array", "items": {"enum": ["a", "b", "c"]}, "uniqueItems": False, "minItems": 5},
    {
        "type": "array",
        "items": {"type": "integer", "minimum": 0, "maximum": 4},
        "uniqueItems": True,
        "minItems": 3,
    },
    {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "maxItems": 2},
    {"type": "array", "maxItems": 0},
    {"type": "object", "additionalProperties": {"type": "integer"}},
    {"properties": {"a": {"type": "integer"}}, "required": ["a", "b"]},
    {
        "oneOf": [
            {"type": "integer"},
            {"type": "object", "properties": {"x": {"type": "null"}}, "required": ["x"]},
        ]
    },
    {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"properties": {"b": {"const": 2}}, "required": ["b"]},
        ]
    },
    choice_schema(["yes", "no"]),
    TREE,
    LINKED,
]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_instances_follow_their_schema(schema) -> None:
    for seed in range(40):
        jsonschema.validate(instance(schema, Random(seed), lambda options: options[0]), schema)


def test_optional_properties_are_made_too() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}}
    assert set(instance(schema, Random(0), max)) == {"a", "b"}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "string", "pattern": "a+"}, "pattern 'a\\+'"),
        ({"type": "thing"}, "unknown type 'thing'"),
        ({"$ref": "#/$defs/none"}, "leads nowhere"),
        ({"$ref": "http://else.where"}, "leads nowhere"),
        ({"type": "object", "minProperties": 2}, "minProperties"),
        ({"type": "integer", "minimum": 2, "maximum": 1}, "no integer is between"),
        ({"type": "array", "items": {"const": 1}, "uniqueItems": True, "minItems": 2}, "2 different items"),
        ({"properties": {"self": {"$ref": "#"}}, "required": ["self"]}, "requires itself without end"),
    ],
)
def test_schemas_without_an_instance_are_refused(schema, words) -> None:
    with pytest.raises(UnsupportedSchema, match=words):
        instance(schema, Random(0), max)
    with pytest.raises(BadRequest, match=words):
        format_ = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        answer(read({"messages": [{"content": "hi"}], "response_format": format_}, 0), SimulatedBehavior())
