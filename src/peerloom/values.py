"""Check that JSON values survive encoding unchanged, and parse JSON that is not quite valid.

A value crosses processes as MessagePack and ends in a row as JSON. Both must return the same value, so a
value that either of them would change, such as NaN, a set, or an integer of more than 64 bits, is refused.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from math import isfinite
from typing import Any, cast

import msgspec

MAX_DEPTH = 100
"""The most levels of nested lists and objects in an input row, a value, a schema, or a reply."""

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
        name: the name of the value in the message, such as `value` or `input`.

    Raises:
        ValueError: if it cannot; the message names the item, as in `value.scores[2]: NaN is not JSON`.
    """
    pending: list[tuple[object, str, int]] = [(value, name, 0)]
    while pending:
        item, path, depth = pending.pop()
        problem = _problem(item, depth)
        if problem:
            raise ValueError(f"{_shortened(path, _LONGEST_PATH)}: {problem}")
        pending += [(inner, path + step, depth + 1) for inner, step in _items(item, path)]


def too_deep(value: object) -> bool:
    """Return whether lists and objects in a value are nested more than `MAX_DEPTH` levels deep."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        inside = (inner for item in level for inner in _inside(item))
        level = [inner for inner in inside if isinstance(inner, dict | list | tuple)]
        if not level:
            return False
    return True


def escaped(text: str) -> str:
    r"""Return text that can be encoded as UTF-8: lone surrogates become escapes such as `\ud83d`."""
    if text.isascii():
        return text
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def changed_by_parsing(data: bytes, value: object, name: str) -> str:
    """Return why a parsed value differs from its JSON text or cannot be kept; empty if neither is so.

    The parser silently turns integers of more than 64 bits into floats.

    `name` is the name of the value in the message.
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
    """Parse JSON leniently: NaN and infinities become null, lone surrogates U+FFFD.

    Raises:
        ValueError: if the text is not JSON even so.
        RecursionError: if it is nested too deep.
    """
    return without_surrogates(parsed(text))


def parsed(text: str, parse_int: Callable[[str], Any] = int) -> Any:
    """Parse JSON like `mended`, but leave lone surrogates in: halves of a pair may still be joined.

    Control characters in strings are kept, and `parse_int` converts integers.
    """
    return json.loads(text, strict=False, parse_int=parse_int, parse_constant=_null, parse_float=_finite)


def without_surrogates(value: Any) -> Any:
    """Return a copy of a JSON value in which surrogate pairs are joined and lone surrogates are U+FFFD."""
    encoded = json.dumps(value, ensure_ascii=False).encode("utf-16-le", "surrogatepass")
    return json.loads(encoded.decode("utf-16-le", "replace"))


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
    """Yield the items of a container, each with the path step that leads to it."""
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
    """Return why an item, apart from the items inside it, cannot be kept; empty if it can."""
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
    """Return whether a text or number is encoded as a basic type, as a member of an enumeration is."""
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
