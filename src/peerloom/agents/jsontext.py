"""JSON that a model wrote, read and mended within bounds: what a model writes is hostile input.

Mending (json-repair) is for the slips of a model: a comma too many, single quotes, words around the value. It
takes time that grows with the square of some inputs, and runs in the peer's event loop, so its steps are
counted and it is stopped when they are spent. What it makes of numbers or nesting is bounded like the rest.
"""

from contextlib import suppress
from typing import Any, SupportsIndex, cast

import orjson

from peerloom.values import MAX_DEPTH, changed_by_parsing, check, mended

LONGEST = 1_000_000
"""Characters of JSON that are read."""
MENDABLE = 65_536
"""Characters that mending is tried on."""
STEPS = 500_000
"""Looks at a character that mending may take: 0.3 s or so; some 3 per character of a usual reply."""


def read_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: if it is none, or is longer or deeper than any answer.
    """
    if len(text) > LONGEST:
        raise ValueError(f"it has {len(text)} characters, more than {LONGEST}: reply with less")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({error}): reply with the JSON value alone") from error
    if problem := changed_by_parsing(text.encode(), value, "it"):
        raise ValueError(f"{problem.partition(';')[0]}: reply with another value")
    return value


def mend_json(text: str) -> Any:
    """The object or list that a text which is no JSON was meant to be.

    Raises:
        ValueError: if that cannot be made out.
    """
    if len(text) > MENDABLE or _depth_of(text) > MAX_DEPTH:
        raise ValueError("it is too long or too deep to be mended")
    with suppress(ValueError, RecursionError):
        value = mended(text)
        if value and isinstance(value, dict | list):
            return _checked(cast("Any", value))
    from json_repair import loads  # noqa: PLC0415 - few replies need it

    try:
        # Through bytes and back: what it makes is plain JSON then, or an error.
        repaired = loads(_Metered.of(text, [STEPS]), skip_json_loads=True)
        value = orjson.loads(orjson.dumps(repaired, option=orjson.OPT_NON_STR_KEYS))
    except (_Spent, ValueError, TypeError, RecursionError, IndexError, KeyError, AttributeError) as error:
        raise ValueError("it cannot be mended") from error
    if not isinstance(value, dict | list) or not value:
        raise ValueError("it is no object or list")
    return _checked(cast("Any", value))


class _Spent(Exception):
    """Mending has taken its steps."""


class _Metered(str):
    """A text that counts how often it is looked at; its slices and sums count on."""

    __slots__ = ("_left",)
    _left: list[int]

    @classmethod
    def of(cls, text: str, left: list[int]) -> "_Metered":
        made = cls(text)
        made._left = left
        return made

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        got = str.__getitem__(self, key)
        self._left[0] -= len(got)
        if self._left[0] < 0:
            raise _Spent
        return _Metered.of(got, self._left) if isinstance(key, slice) else got

    def __add__(self, other: str) -> str:
        return _Metered.of(str.__add__(self, other), self._left)


def _checked(value: Any) -> Any:
    check(value, "it")
    return value


def _depth_of(text: str) -> int:
    """How many brackets are open at once, at most; those in strings count too, since these may be broken."""
    open_now = deepest = 0
    for character in text:
        if character in "[{":
            open_now += 1
            deepest = max(deepest, open_now)
        elif character in "]}" and open_now:
            open_now -= 1
    return deepest
