"""Select rows by an expression over their fields, such as `result.score >= 4 and outcome == "completed"`.

The expression has Python's syntax, of which only comparisons, `and`, `or`, `not`, `in`, `len(...)`,
constants, lists, and paths into the row are allowed. It is parsed, never executed as Python. A field that is
not there is `None`, and a comparison of size with `None` is false.
"""

import ast
import operator
from collections.abc import Callable
from typing import Any, NoReturn, cast

from peerloom.errors import ConfigError
from peerloom.lookup.nearest import did_you_mean

Row = dict[str, Any]
Value = Callable[[Row], Any]

FIELDS = (
    *("id", "trial", "seed", "outcome", "reason", "input", "messages", "conversations", "tools", "turns"),
    *("result", "usage", "timing", "provenance", "detail", "error"),
)
"""The fields of a row."""

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Is: operator.eq,
    ast.IsNot: operator.ne,
    ast.In: lambda item, holder: holder is not None and item in holder,
    ast.NotIn: lambda item, holder: holder is None or item not in holder,
}
_ORDER: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}

_JSON_CONSTANTS = {"true": True, "false": False, "null": None}


def parse_where(text: str) -> Callable[[Row], bool]:
    """Return the function that tells whether an expression is true of a row.

    Raises:
        ConfigError: if the expression is wrong; also from the function, if two values of a row cannot be
            compared.
    """
    value = _parse(text)

    def holds(row: Row) -> bool:
        try:
            return bool(value(row))
        except TypeError as error:
            raise ConfigError(f"where `{text}`: row {row.get('id')}: {error}") from error

    return holds


def parse_path(text: str) -> Value:
    """Return the function that reads a path in a row, such as `result.score`; None where there is nothing.

    Raises:
        ConfigError: if it is not a path, or does not begin with a field of a row.
    """
    return _parse(text)


def _parse(text: str) -> Value:
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        place = f" at character {error.offset}" if isinstance(error, SyntaxError) and error.offset else ""
        raise ConfigError(f"`{text}` is no expression{place}: {getattr(error, 'msg', error)}") from error
    return _Parser(text).build(tree.body)


class _Parser:
    """Turns the nodes of an expression into functions of a row."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._builders: dict[type[ast.expr], Callable[[Any], Value]] = {
            ast.Constant: self._constant,
            ast.Name: self._field,
            ast.Attribute: lambda node: _item(self.build(node.value), node.attr),
            ast.Subscript: lambda node: _item_at(self.build(node.value), self.build(node.slice)),
            ast.List: self._list,
            ast.Tuple: self._list,
            ast.UnaryOp: self._unary,
            ast.BoolOp: self._logic,
            ast.Compare: self._comparison,
            ast.Call: self._length,
        }

    def build(self, node: ast.expr) -> Value:
        builder = self._builders.get(type(node), self._refuse_kind)
        return builder(node)

    def _constant(self, node: ast.Constant) -> Value:
        constant = node.value
        if not isinstance(constant, str | int | float | None):
            self._refuse_kind(node)
        return lambda row: constant

    def _field(self, node: ast.Name) -> Value:
        if node.id in _JSON_CONSTANTS:
            constant = _JSON_CONSTANTS[node.id]
            return lambda row: constant
        if node.id not in FIELDS:
            self._refuse(node, f"is no field of a row.{did_you_mean(node.id, FIELDS, all_of=FIELDS)}")
        return lambda row: row.get(node.id)

    def _list(self, node: ast.List | ast.Tuple) -> Value:
        values = [self.build(item) for item in node.elts]
        return lambda row: [value(row) for value in values]

    def _unary(self, node: ast.UnaryOp) -> Value:
        operand = self.build(node.operand)
        if isinstance(node.op, ast.Not):
            return lambda row: not operand(row)
        if not isinstance(node.op, ast.USub):
            self._refuse_kind(node)
        return lambda row: -operand(row)

    def _logic(self, node: ast.BoolOp) -> Value:
        parts = [self.build(each) for each in node.values]
        combine = all if isinstance(node.op, ast.And) else any
        return lambda row: combine(part(row) for part in parts)

    def _length(self, node: ast.Call) -> Value:
        match node:
            case ast.Call(func=ast.Name(id="len"), args=[inner], keywords=[]):
                sized = self.build(inner)
                return lambda row: len(sized(row) or ())
            case _:
                self._refuse_kind(node)

    def _comparison(self, node: ast.Compare) -> Value:
        sides = [self.build(each) for each in (node.left, *node.comparators)]
        tests = [(_COMPARISONS.get(type(op)), _ORDER.get(type(op))) for op in node.ops]

        def compare(row: Row) -> bool:
            values = [side(row) for side in sides]
            for (equal, order), left, right in zip(tests, values, values[1:], strict=False):
                if order is not None:
                    if left is None or right is None or not order(left, right):
                        return False
                elif equal is not None and not equal(left, right):
                    return False
            return True

        return compare

    def _refuse_kind(self, node: ast.expr) -> NoReturn:
        self._refuse(node, "is not allowed: compare fields with ==, <, in, and, or, not, len()")

    def _refuse(self, node: ast.expr, why: str) -> NoReturn:
        part = ast.get_source_segment(self._text.strip(), node)
        raise ConfigError(f"`{self._text}`, character {node.col_offset + 1}: `{part}` {why}")


def _item(inner: Value, key: str) -> Value:
    def read(row: Row) -> Any:
        holder = inner(row)
        return cast("Row", holder).get(key) if isinstance(holder, dict) else None

    return read


def _item_at(inner: Value, index: Value) -> Value:
    def read(row: Row) -> Any:
        try:
            return inner(row)[index(row)]
        except (LookupError, TypeError):
            return None

    return read
