"""Generate a valid instance of a JSON schema, for the simulated model.

Supported are the keywords that language model servers support: objects, arrays, strings, numbers, booleans,
null, enum and const, local `$ref`, anyOf/oneOf/allOf, and the usual bounds. Below a few levels only required
properties are generated, so that recursive schemas end.
"""

import math
from collections.abc import Callable
from random import Random
from typing import Any, cast

from peerloom.services.llm.simulated.prose import prose

_DEEP = 4  # levels below which only required properties are generated
_DEEPEST = 40

Schema = dict[str, Any]


class UnsupportedSchema(ValueError):
    """A schema that is not supported."""


def instance(schema: Schema, rng: Random, pick: Callable[[list[str]], str]) -> Any:
    """Return a value that is valid for `schema`; `pick` chooses among the strings of an enum.

    Raises:
        UnsupportedSchema: for keywords that are not supported, or endless recursion.
    """
    return _Generator(schema, rng, pick).make(schema, 0)


class _Generator:
    def __init__(self, root: Schema, rng: Random, pick: Callable[[list[str]], str]) -> None:
        self._root = root
        self._rng = rng
        self._pick = pick
        self._makers: dict[str, Callable[[Schema, int], Any]] = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "integer": self._integer,
            "number": self._number,
            "boolean": lambda schema, depth: rng.random() < 0.5,
            "null": lambda schema, depth: None,
        }

    def make(self, schema: Any, depth: int) -> Any:
        if depth > _DEEPEST:
            raise UnsupportedSchema("the schema requires itself without end")
        if not isinstance(schema, dict):
            return self._string({}, depth)  # `true` accepts any value
        node = self._flat(cast("Schema", schema))
        if "const" in node:
            return node["const"]
        if "enum" in node:
            return self._enum(node["enum"])
        options = node.get("anyOf") or node.get("oneOf")
        if options:
            return self.make(
                self._simplest(options) if depth >= _DEEP else self._rng.choice(options), depth + 1
            )
        kind = node.get("type", "object" if "properties" in node else "string")
        if isinstance(kind, list):
            kinds = cast("list[str]", kind)
            kind = "null" if depth >= _DEEP and "null" in kinds else self._rng.choice(kinds)
        if kind not in self._makers:
            raise UnsupportedSchema(f"unknown type {kind!r}")
        return self._makers[kind](node, depth)

    def _flat(self, schema: Schema) -> Schema:
        """Return the schema with its `$ref` resolved and its `allOf` merged."""
        node = dict(schema)
        for _ in range(_DEEPEST):
            if "$ref" not in node:
                break
            node = {**self._resolved(node.pop("$ref")), **node}
        parts: list[Schema] = node.pop("allOf", [])
        for part in parts:
            other = self._flat(part)
            merged: Schema = {**other, **node}
            if "properties" in merged:
                merged["properties"] = {**other.get("properties", {}), **node.get("properties", {})}
                merged["required"] = [*other.get("required", []), *node.get("required", [])]
            node = merged
        return node

    def _resolved(self, ref: str) -> Schema:
        node: Any = self._root
        try:
            for name in ref.removeprefix("#").split("/")[1:]:
                node = node[name.replace("~1", "/").replace("~0", "~")]
        except (KeyError, TypeError) as error:
            raise UnsupportedSchema(f"$ref {ref!r} leads nowhere") from error
        if not ref.startswith("#") or not isinstance(node, dict):
            raise UnsupportedSchema(f"$ref {ref!r} leads nowhere")
        return cast("Schema", node)

    def _enum(self, values: list[Any]) -> Any:
        if all(isinstance(value, str) for value in values):
            return self._pick(values)
        return self._rng.choice(values)

    def _simplest(self, options: list[Any]) -> Any:
        def weight(option: Any) -> int:
            node = self._flat(cast("Schema", option)) if isinstance(option, dict) else {}
            return {"object": 2, "array": 1}.get(node.get("type", ""), 2 if "properties" in node else 0)

        return min(options, key=weight)

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        properties: Schema = schema.get("properties", {})
        required: list[str] = schema.get("required", [])
        names = required if depth >= _DEEP else [*properties, *(n for n in required if n not in properties)]
        if len(names) < schema.get("minProperties", 0):
            raise UnsupportedSchema("minProperties asks for more than the properties listed")
        extra = schema.get("additionalProperties", True)
        return {name: self.make(properties.get(name, extra), depth + 1) for name in names}

    def _array(self, schema: Schema, depth: int) -> list[Any]:
        fixed: list[Any] = schema.get("prefixItems", [])
        least = max(schema.get("minItems", 0), len(fixed))
        most = min(schema.get("maxItems", least + 3), least + 3)
        size = least if depth >= _DEEP else self._rng.randint(min(least or 1, most), most)
        item_schema = schema.get("items", True)
        items = [self.make(part, depth + 1) for part in fixed]
        for _ in range(20 * size):
            if len(items) >= size:
                break
            value = self.make(item_schema, depth + 1)
            if not schema.get("uniqueItems") or value not in items:
                items.append(value)
        if len(items) < least:
            raise UnsupportedSchema(f"could not make {least} different items")
        return items

    def _string(self, schema: Schema, depth: int) -> str:
        if "pattern" in schema:
            raise UnsupportedSchema(f"cannot make strings for pattern {schema['pattern']!r}")
        least = schema.get("minLength", 0)
        most = schema.get("maxLength", max(60, least))
        text = prose(max(least, min(most, self._rng.randint(8, 60))), self._rng.getrandbits(64))
        return text.ljust(least, ".")[:most]

    def _integer(self, schema: Schema, depth: int) -> int:
        step = schema.get("multipleOf", 1)
        low, high = _bounds(schema, 1)
        low, high = math.ceil(low / step), math.floor(high / step)
        if low > high:
            raise UnsupportedSchema(f"no integer is between the bounds of {schema}")
        return int(self._rng.randint(low, high) * step)

    def _number(self, schema: Schema, depth: int) -> float:
        if "multipleOf" in schema:
            return self._integer(schema, depth)
        low, high = _bounds(schema, 1e-6)
        return min(max(round(self._rng.uniform(low, high), 3), low), high)


def _bounds(schema: Schema, margin: float) -> tuple[float, float]:
    """Return the minimum and maximum; exclusive bounds are narrowed by `margin`."""
    low = max(schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf) + margin)
    high = min(schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf) - margin)
    if low == -math.inf:
        low = 0 if high >= 0 else high - 100
    return low, low + 100 if high == math.inf else high
