"""Infer the type that a Parquet column needs, from every value in the rows.

A `ColumnShape` stands for one path in the rows (`result`, or `value` in each item of `turns`) and records the
types found there. Its `kind` is one type that holds all of them:

- whole numbers, also mixed with fractions; truth values; text;
- a list, whose items have a shape;
- an object, each of whose fields has a shape.

The kind is JSON text for mixed types (text in one row, a number in another), an object without fields, an
object whose names are data rather than fields (more than `MAX_FIELDS` of them), and anything nested deeper
than `MAX_DEPTH`. Rows hold the output of models, so the total number of shapes is bounded too (`MAX_SHAPES`).
"""

from dataclasses import dataclass
from typing import Any, Literal, cast

MAX_DEPTH = 12
MAX_FIELDS = 200
MAX_SHAPES = 2000

EXACT = 2**53  # a float holds every whole number up to here without loss

Kind = Literal["bool", "int", "uint", "float", "text", "list", "object", "json"]

_KINDS: dict[type, str] = {
    bool: "bool",
    int: "number",
    float: "number",
    str: "text",
    list: "list",
    dict: "object",
}


@dataclass
class _Budget:
    """The number of shapes that may still be created, shared by all shapes of a file."""

    left: int = MAX_SHAPES


class ColumnShape:
    """The types found at one path of the rows. Depth 0 is the row itself, whose fields the sink defines."""

    __slots__ = ("_budget", "_depth", "_kind", "fields", "fraction", "high", "items", "low")

    def __init__(self, depth: int = 0, budget: _Budget | None = None) -> None:
        self._depth = depth
        self._budget = budget or _Budget()
        self._kind = ""
        self.fraction = False
        self.low = self.high = 0
        self.fields: dict[str, ColumnShape] = {}
        self.items: ColumnShape | None = None

    @property
    def kind(self) -> Kind:
        """The type that holds all values added so far; text if there were none."""
        if self._kind == "number":
            return self._number_kind()
        if self._kind == "object" and not self.fields:
            return "json"
        return cast("Kind", self._kind) or "text"

    def add(self, value: Any) -> None:
        """Widen the shape to hold one value; None changes nothing."""
        if value is None or self._kind == "json":
            return
        kind = _KINDS[type(value)]
        if self._kind != kind:
            if self._kind or (kind in ("list", "object") and self._depth >= MAX_DEPTH):
                return self._become_json()
            self._kind = kind
        if kind == "number":
            self._add_number(value)
        elif kind == "list":
            self._add_list(cast("list[Any]", value))
        elif kind == "object":
            self._add_object(cast("dict[str, Any]", value))

    def _become_json(self) -> None:
        self._kind = "json"
        self.fields, self.items = {}, None

    def _add_number(self, value: float) -> None:
        if isinstance(value, float):
            self.fraction = True
        else:
            self.low, self.high = min(self.low, value), max(self.high, value)

    def _add_list(self, values: list[Any]) -> None:
        if self.items is None:
            if not self._budget.left:
                return self._become_json()
            self.items = self._child()
        add = self.items.add
        for each in values:
            add(each)

    def _add_object(self, value: dict[str, Any]) -> None:
        fields = self.fields
        for name, inner in value.items():
            field = fields.get(name)
            if field is None:
                if self._depth and (len(fields) >= MAX_FIELDS or not self._budget.left):
                    return self._become_json()
                field = fields[name] = self._child()
            if inner is not None and not (field._kind == "text" and type(inner) is str):  # the common case
                field.add(inner)

    def _child(self) -> "ColumnShape":
        self._budget.left -= 1
        return ColumnShape(self._depth + 1, self._budget)

    def _number_kind(self) -> Kind:
        if self.fraction:
            return "float" if -EXACT <= self.low and self.high <= EXACT else "json"
        if -(2**63) <= self.low and self.high < 2**63:
            return "int"
        return "uint" if self.low >= 0 else "json"  # the parser reads no whole number of more than 64 bits
