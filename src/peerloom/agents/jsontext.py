"""Parse JSON written by a model, and repair it, with limits since the text is untrusted input.

Repair (json-repair) is for a model's slips: an extra comma, single quotes, words around the value. For some
inputs its time grows quadratically, and it runs in the peer's event loop, so its steps are counted and
limited. Its result is subject to the same limits of depth and numbers as any other JSON.
"""

from contextlib import suppress
from typing import Any, SupportsIndex, cast

import orjson

from peerloom.values import MAX_DEPTH, changed_by_parsing, check, mended

MAX_LENGTH = 1_000_000
"""The longest JSON text that is parsed, in characters."""
MAX_REPAIR_LENGTH = 65_536
"""The longest text that is repaired, in characters."""
MAX_STEPS = 500_000
"""The limit of character accesses during a repair: about 0.3 s. A usual reply takes about 3 per character."""


def read_json(text: str) -> Any:
    """Return the value of a JSON text."""
    if len(text) > MAX_LENGTH:
        raise ValueError(f"it has {len(text)} characters, more than {MAX_LENGTH}: reply with less")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({error}): reply with the JSON value alone") from error
    if problem := changed_by_parsing(text.encode(), value, "it"):
        raise ValueError(f"{problem.partition(';')[0]}: reply with another value")
    return value


def repair_json(text: str) -> Any:
    """Return the object or list that a malformed JSON text was meant to be."""
    if len(text) > MAX_REPAIR_LENGTH or _depth_of(text) > MAX_DEPTH:
        raise ValueError("it is too long or too deep to be repaired")
    with suppress(ValueError, RecursionError):
        value = mended(text)
        if value and isinstance(value, dict | list):
            return _checked(cast("Any", value))
    from json_repair import loads  # noqa: PLC0415 - few replies need it

    try:
        # Encoding and decoding makes the result plain JSON, or fails.
        repaired = loads(_CountedText.of(text, [MAX_STEPS]), skip_json_loads=True)
        value = orjson.loads(orjson.dumps(repaired, option=orjson.OPT_NON_STR_KEYS))
    except (_NoStepsLeft, ValueError, TypeError, RecursionError, LookupError, AttributeError) as error:
        raise ValueError("it cannot be repaired") from error
    if not isinstance(value, dict | list) or not value:
        raise ValueError("it is not an object or a list")
    return _checked(cast("Any", value))


class _NoStepsLeft(Exception):
    pass


class _CountedText(str):
    """A text that counts accesses to its characters, as do its slices and concatenations."""

    __slots__ = ("_left",)
    _left: list[int]

    @classmethod
    def of(cls, text: str, left: list[int]) -> "_CountedText":
        made = cls(text)
        made._left = left
        return made

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        got = str.__getitem__(self, key)
        self._left[0] -= len(got)
        if self._left[0] < 0:
            raise _NoStepsLeft
        return _CountedText.of(got, self._left) if isinstance(key, slice) else got

    def __add__(self, other: str) -> str:
        return _CountedText.of(str.__add__(self, other), self._left)


def _checked(value: Any) -> Any:
    check(value, "it")
    return value


def _depth_of(text: str) -> int:
    """Return the maximum number of open brackets, including those in strings, which may be unterminated."""
    depth = deepest = 0
    for character in text:
        if character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}" and depth:
            depth -= 1
    return deepest
