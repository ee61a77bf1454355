"""JSON values: which of them a task can carry without changing them, and how far they may be nested.

A value crosses processes as MessagePack and ends in a row as JSON. Both must give back what went in, so a
value that either of them would change, such as NaN, a set, or an integer of more than 64 bits, is refused.
"""

import re
from collections.abc import Iterable, Iterator
from math import isfinite
from typing import Any, cast

MAX_DEPTH = 100
"""Levels of lists and objects inside each other: of an input row, a value, a schema, and a reply."""

_SMALLEST, _LARGEST = -(1 << 63), (1 << 64) - 1
_SURROGATE = re.compile("[\ud800-\udfff]")
_PLAIN_KEY = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_LONGEST_TEXT = 40  # characters of a key or text in a message
_LONGEST_PATH = 120


def check(value: object, name: str) -> None:
    """Check that a value can be kept exactly.

    Tuples count as lists. The check visits every item: on a hot path, encode first, and check only to
    explain a failure.

    Args:
        value: any Python object; it may contain itself.
        name: what the value is called in the message, such as `value` or `input`.

    Raises:
        ValueError: if it cannot; the text names the item, as in `value.scores[2]: NaN is not JSON`.
    """
    pending: list[tuple[object, str, int]] = [(value, name, 0)]
    while pending:
        item, path, depth = pending.pop()
        problem = _problem(item, depth)
        if problem:
            raise ValueError(f"{_shortened(path, _LONGEST_PATH)}: {problem}")
        pending += [(inner, path + step, depth + 1) for inner, step in _items(item, path)]


def too_deep(value: object) -> bool:
    """Whether lists and objects in a value are nested more than `MAX_DEPTH` levels deep."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        inside = (inner for item in level for inner in _inside(item))
        level = [inner for inner in inside if isinstance(inner, dict | list | tuple)]
        if not level:
            return False
    return True


def escaped(text: str) -> str:
    r"""Text that can be encoded as UTF-8: lone surrogates become escapes such as `\ud83d`."""
    if text.isascii():
        return text
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _inside(item: object) -> Iterable[object]:
    if isinstance(item, dict):
        return cast("dict[Any, object]", item).values()
    return cast("list[object]", item) if isinstance(item, list | tuple) else ()


def _items(item: object, path: str) -> Iterator[tuple[object, str]]:
    """The items inside a value, each with the step that leads to it."""
    if isinstance(item, dict):
        for key, inner in cast("dict[Any, Any]", item).items():
            if not isinstance(key, str):
                raise ValueError(f"{path}: a key of type {type(key).__name__}; use only strings as keys")
            if _SURROGATE.search(key):
                raise ValueError(f"{path}: the key {_quoted(key)} holds a lone surrogate")
            yield inner, f".{key}" if _PLAIN_KEY.fullmatch(key) else f"[{_quoted(key)}]"
    elif isinstance(item, list | tuple):
        for number, inner in enumerate(cast("list[Any]", item)):
            yield inner, f"[{number}]"


def _problem(item: object, depth: int) -> str:
    """The reason why one item, apart from those inside it, cannot be kept; empty if it can."""
    match item:
        case None | bool():
            return ""
        case str():
            return f"{_quoted(item)} holds a lone surrogate" if _SURROGATE.search(item) else ""
        case int():
            return (
                "" if _SMALLEST <= item <= _LARGEST else "an integer of more than 64 bits; make it a string"
            )
        case float():
            return "" if isfinite(item) else f"{float(item)} is not JSON; use None or a string"
        case list() | tuple() | dict():
            deep = depth >= MAX_DEPTH
            return f"nested more than {MAX_DEPTH} levels deep" if deep else ""
        case _:
            return f"of type {type(item).__name__}, not JSON; use None, bool, int, float, str, list, or dict"


def _quoted(text: str) -> str:
    return _shortened(str.__repr__(text), _LONGEST_TEXT)


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}..."
