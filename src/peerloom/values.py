"""JSON values: which of them a task can carry without changing them, and how far they may be nested.

A value crosses processes as MessagePack and ends in a row as JSON. Both must give back what went in, so a
value that either of them would change, such as NaN, a set, or an integer of more than 64 bits, is refused.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from math import isfinite
from typing import Any, cast

import msgspec

MAX_DEPTH = 100
"""Levels of lists and objects inside each other: of an input row, a value, a schema, and a reply."""

_SMALLEST, _LARGEST = -(1 << 63), (1 << 64) - 1
_SURROGATE = re.compile("[\ud800-\udfff]")
_PLAIN_KEY = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_DIGITS = bytes(ord("0") if 48 <= byte <= 57 else ord(" ") for byte in range(256))
_LONG = b"0" * 19  # the fewest digits of an integer that needs more than 63 bits
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


def changed_by_parsing(data: bytes, value: object, name: str) -> str:
    """Return the reason why a parsed value is not what its JSON says, or cannot be carried; empty if it is.

    A parser turns integers of more than 64 bits into floats without a word.

    Args:
        data: the value as JSON.
        value: the same, parsed.
        name: what the value is called in the reason.
    """
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and too_deep(value):
        return f"{name}: nested more than {MAX_DEPTH} levels deep"
    if _LONG not in data.translate(_DIGITS):  # a microsecond for 2 KB
        return ""
    try:
        check(json.loads(data), name)
    except ValueError as error:
        return str(error)
    return ""


def mended(text: str) -> Any:
    """Parse JSON as some programs write it: NaN and infinities become null, lone surrogates U+FFFD.

    Raises:
        ValueError: if it is no JSON even so.
        RecursionError: if it is nested too deep to be read.
    """
    return without_surrogates(parsed(text))


def parsed(text: str, parse_int: Callable[[str], Any] = int) -> Any:
    """As `mended`, with lone surrogates left in: halves of a pair may still be joined.

    Control characters in strings are kept, and `parse_int` decides on integers.
    """
    return json.loads(text, strict=False, parse_int=parse_int, parse_constant=_null, parse_float=_finite)


def without_surrogates(value: Any) -> Any:
    """A copy of a JSON value in which lone surrogates are U+FFFD, and halves of a pair one character."""
    kept = json.dumps(value, ensure_ascii=False).encode("utf-16-le", "surrogatepass")
    return json.loads(kept.decode("utf-16-le", "replace"))


def _null(_: str) -> None:
    return None


def _finite(text: str) -> float | None:
    number = float(text)
    return number if isfinite(number) else None


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


def _problem(item: object, depth: int) -> str:  # noqa: PLR0911 - one for each kind
    """The reason why one item, apart from those inside it, cannot be kept; empty if it can."""
    match item:
        case None | bool():
            return ""
        case str() | int() | float() if not _is_plain(item):
            return f"of type {type(item).__name__}, not JSON; use a plain str, int, or float"
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


def _is_plain(item: object) -> bool:
    """Whether a text or number is of a basic type, or is encoded as one, as a member of an enumeration is."""
    if type(item) in (str, int, float):
        return True
    try:
        msgspec.msgpack.encode(item)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _quoted(text: str) -> str:
    return _shortened(str.__repr__(text), _LONGEST_TEXT)


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}..."
