"""What all rows have in common: the shape that a column of Parquet needs, found by looking at every value.

A `Shape` stands for one place in the rows (`result`, or `value` in each item of `turns`) and notes what has
stood there. In the end it settles on one kind that holds all of it:

- whole numbers, also mixed with fractions; truth values; text;
- a list, whose items are a place of their own;
- an object, each of whose fields is a place of its own.

What does not agree (text here, a number there), an object without fields, one whose names are data rather
than fields (more than `MOST_FIELDS` of them) and what is nested deeper than `DEEPEST` is kept as its JSON
text. Rows hold what models wrote, so the number of places is bounded too (`MOST_PLACES`).
"""

from dataclasses import dataclass
from typing import Any, Literal, cast

DEEPEST = 12
MOST_FIELDS = 200
MOST_PLACES = 2000

EXACT = 2**53  # whole numbers up to here are fractions too, without loss

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
class _Room:
    """How many more places there may be in all."""

    left: int = MOST_PLACES


class Shape:
    """One place, in all rows seen so far. Depth 0 is the row itself, whose fields are the sink's own."""

    __slots__ = ("_depth", "_kind", "_room", "fields", "fraction", "high", "items", "low")

    def __init__(self, depth: int = 0, room: _Room | None = None) -> None:
        self._depth = depth
        self._room = room or _Room()
        self._kind = ""
        self.fraction = False
        self.low = self.high = 0
        self.fields: dict[str, Shape] = {}
        self.items: Shape | None = None

    def see(self, value: Any) -> None:
        """Take note of one value; None says nothing."""
        if value is None or self._kind == "json":
            return
        kind = _KINDS[type(value)]
        if self._kind != kind:
            if self._kind or (kind in ("list", "object") and self._depth >= DEEPEST):
                return self._give_up()
            self._kind = kind
        if kind == "number":
            self._see_number(value)
        elif kind == "list":
            self._see_list(cast("list[Any]", value))
        elif kind == "object":
            self._see_object(cast("dict[str, Any]", value))

    def settle(self) -> Kind:
        """The kind that holds all that was seen; text if that was nothing."""
        if self._kind == "number":
            return self._number()
        if self._kind == "object" and not self.fields:
            return "json"
        return cast("Kind", self._kind) or "text"

    def _give_up(self) -> None:
        self._kind = "json"
        self.fields, self.items = {}, None

    def _see_number(self, value: float) -> None:
        if isinstance(value, float):
            self.fraction = True
        else:
            self.low, self.high = min(self.low, value), max(self.high, value)

    def _see_list(self, values: list[Any]) -> None:
        if self.items is None:
            if not self._room.left:
                return self._give_up()
            self.items = self._place()
        see = self.items.see
        for each in values:
            see(each)

    def _see_object(self, value: dict[str, Any]) -> None:
        fields = self.fields
        for name, inner in value.items():
            field = fields.get(name)
            if field is None:
                if self._depth and (len(fields) >= MOST_FIELDS or not self._room.left):
                    return self._give_up()
                field = fields[name] = self._place()
            if inner is not None and not (field._kind == "text" and type(inner) is str):  # most are no news
                field.see(inner)

    def _place(self) -> "Shape":
        self._room.left -= 1
        return Shape(self._depth + 1, self._room)

    def _number(self) -> Kind:
        if self.fraction:
            return "float" if -EXACT <= self.low and self.high <= EXACT else "json"
        if -(2**63) <= self.low and self.high < 2**63:
            return "int"
        return "uint" if self.low >= 0 else "json"  # no JSON number that is read as whole is beyond 64 bits
