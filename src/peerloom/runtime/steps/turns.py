"""Check that the turns and ends returned by agents and workflows survive encoding unchanged.

The fast path encodes and compares. Only a turn that fails there is searched for the invalid field.
"""

from math import inf
from typing import Any, NoReturn, cast

import msgspec
import orjson

from peerloom import values
from peerloom.agents.base import Agent
from peerloom.runtime.steps.faults import is_reason
from peerloom.runtime.steps.messages import check_turn, is_plain_message
from peerloom.task import OUTCOMES, End, Extras, Task, Turn, Usage

COUNT_BITS = 53
MAX_USD = 1e12
MAX_COUNT = (1 << COUNT_BITS) - 1
"""The largest count of tokens or calls in one turn: sums of a thousand of them fit in 64 bits."""

_PASS_THROUGH = (
    orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
)
_INFINITE, _MINUS_INFINITE = msgspec.msgpack.encode(inf), msgspec.msgpack.encode(-inf)
_SCALARS = frozenset((str, int, bool, type(None)))  # MessagePack alone rejects their invalid values
_NO_USAGE = Turn("").usage
_ENCODING_ERRORS = (TypeError, ValueError, OverflowError, RecursionError)
_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode
_TYPES: tuple[tuple[str, type | tuple[type, ...], str], ...] = (
    ("agent", str, "a string"),
    ("message", (dict, type(None)), "a dict or None"),
    ("end", (End, type(None)), "an End or None"),
    ("usage", Usage, "a Usage"),
    ("model", str, "a string"),
    ("finish_reason", str, "a string"),
    ("extras", (Extras, type(None)), "an Extras or None"),
    ("context_only", bool, "a bool"),
)


def checked(acted: object, agent: Agent) -> list[Turn]:
    """Return the turns that an agent returned, after checking their types.

    Raises:
        TypeError: if they are not a turn or a list of turns.
        ValueError: if the list is empty, or a turn before the last one has an end.
    """
    if isinstance(acted, Turn):
        return [acted]
    if not isinstance(acted, list):
        hint = ""
        if isinstance(acted, type):
            hint = f" (the class {acted.__name__} itself)"
        raise TypeError(
            f"{type(agent).__name__}.act returned a {type(acted).__name__}{hint}; "
            "return a Turn or a list of them"
        )
    turns = cast("list[object]", acted)
    if not turns:
        raise ValueError(f"{type(agent).__name__}.act returned no turn; return at least one")
    for number, turn in enumerate(turns):
        if not isinstance(turn, Turn):
            raise TypeError(
                f"{type(agent).__name__}.act returned a list with a {type(turn).__name__} at [{number}]; "
                "return only instances of Turn"
            )
        if turn.end is not None and number < len(turns) - 1:
            raise ValueError(
                f"{type(agent).__name__}.act returned a list whose turn [{number}] has an end; "
                "only the last one may end the task"
            )
    return cast("list[Turn]", turns)


def appended(task: Task, *turns: Turn) -> Task:
    """Append turns to a task.

    Raises:
        ValueError: if a turn holds a value that would be changed; the text names the field.
        TypeError: if a field is of the wrong type.
    """
    try:
        if len(turns) == 1 and _is_plain(turns[0]):
            return task.with_exact_turn(turns[0])
        after = task.with_turns(*turns)
    except _ENCODING_ERRORS as error:
        for turn in turns:
            _explain(turn)
        raise ValueError(f"a turn cannot be encoded: {error}") from error
    copies = (
        (after.last,) if len(turns) == 1 else after.turns[-len(turns) :]
    )  # the last turn is decoded already
    for turn, copy in zip(turns, copies, strict=True):
        _check_usage(turn.usage)
        check_turn(turn)
        if turn.end is not None:
            _check_end(turn.end)
        if turn != copy or not _is_json(turn):
            _explain(turn)
            _compare(turn, copy)
    return after


def _is_plain(turn: Turn) -> bool:
    """Return whether encoding a turn checks it completely, as for nearly all turns."""
    usage, message = turn.usage, turn.message
    value: Any = turn.value
    if usage is not _NO_USAGE and not _is_usual(usage):
        return False
    if message is not None and not is_plain_message(message):
        return False
    if type(value) not in _SCALARS and not _is_flat(value):
        return False
    context: Any = turn.context
    if context != () and not _are_plain(context):
        return False
    return turn.end is turn.extras is None and type(turn.model) is type(turn.finish_reason) is str


def _are_plain(context: Any) -> bool:
    if type(context) is not tuple:
        return False
    return all(map(is_plain_message, cast("tuple[Any, ...]", context)))


def _is_usual(usage: Usage) -> bool:
    if type(usage) is not Usage:
        return False
    prompt, completion, cached, calls = usage.prompt, usage.completion, usage.cached, usage.calls
    return (
        type(prompt) is type(completion) is type(cached) is type(calls) is int
        and (prompt | completion | cached | calls) >> COUNT_BITS == 0
        and type(usage.usd) is float
        and 0 <= usage.usd <= MAX_USD
    )


def _is_flat_json(value: object) -> bool:
    """Return whether a value is a scalar but no float, a dict of such scalars, or a list of such dicts."""
    if type(value) is list:
        return all(map(_is_flat, cast("list[Any]", value)))
    return type(value) in _SCALARS or _is_flat(value)


def _is_flat(value: Any) -> bool:
    if type(value) is not dict:
        return False
    for key, item in cast("dict[Any, Any]", value).items():
        if type(item) not in _SCALARS or type(key) is not str:
            return False
    return True


def check_end(end: End, name: str) -> None:
    """Check an end that a workflow returned.

    Raises:
        ValueError: if its outcome is unknown, or it holds a value that would be changed.
    """
    _check_end(end)
    if end.result is not None:
        check_exact(end.result, name)


def check_exact(value: object, name: str) -> None:
    """Check a value as `values.check` does, but at the cost of encoding it if it is valid.

    Raises:
        ValueError: if it cannot be kept exactly.
    """
    try:
        if _is_flat_json(value):
            _encode(value)
            return
        exact = _decode(_encode(value)) == value and _is_json_text([value])
    except _ENCODING_ERRORS:
        exact = False
    if not exact:
        values.check(value, name)


def _is_json(turn: Turn) -> bool:
    """Return whether the values of a turn are certainly JSON; if False, they must be searched."""
    parts: list[Any] = []
    if turn.message is not None:
        parts.append(turn.message)
    if type(turn.value) not in _SCALARS:
        parts.append(turn.value)
    if turn.end is not None and turn.end.result is not None:
        parts.append(turn.end.result)
    if turn.extras is not None:
        parts += (turn.extras.logprobs, turn.extras.token_ids)
    return not parts or _is_json_text(parts)


def _is_json_text(parts: list[Any]) -> bool:
    """Return whether values that encoding did not change are certainly JSON; if not, search them."""
    try:
        text = orjson.dumps(parts, option=_PASS_THROUGH)
    except TypeError:
        return False
    if b"null" in text and _holds_infinity(parts):  # which orjson writes as null
        return False
    # Each level has an opening bracket.
    deep = text.count(b"[") + text.count(b"{") > values.MAX_DEPTH
    return not deep or not any(map(values.too_deep, parts))


def _holds_infinity(parts: list[Any]) -> bool:
    """Return whether the values may contain an infinite number; text with the same bytes counts too."""
    packed = _encode(parts)
    return _INFINITE in packed or _MINUS_INFINITE in packed


def _explain(turn: Turn) -> None:
    """Raise an error that names the invalid field of a turn; return if there is none."""
    for name, types, expected in _TYPES:
        value = getattr(turn, name)
        if not isinstance(value, types):
            raise TypeError(f"{name}: a {type(value).__name__}; it must be {expected}")
    _check_usage(turn.usage)
    for name in ("message", "value", "model", "finish_reason", "context"):
        values.check(getattr(turn, name), name)
    check_turn(turn)
    if turn.end is not None:
        _check_end(turn.end)
        values.check(turn.end.result, "end.result")
    if turn.extras is not None:
        _explain_extras(turn.extras)


def _compare(turn: Turn, copy: Turn | None) -> None:
    """Raise an error if a turn and its copy differ in more than tuples, which are lists in the copy."""
    for name in Turn.__struct_fields__:
        if not _same(getattr(turn, name), getattr(copy, name)):
            raise ValueError(f"{name}: it would be changed by encoding it; use plain JSON values")


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, msgspec.Struct):
        return all(_same(getattr(before, name), getattr(after, name)) for name in before.__struct_fields__)
    if isinstance(before, list | tuple):
        pairs = zip(cast("list[Any]", before), after, strict=True)
        return len(cast("list[Any]", before)) == len(after) and all(_same(*pair) for pair in pairs)
    if isinstance(before, dict):
        values = cast("dict[str, Any]", before).values()
        return len(values) == len(after) and all(map(_same, values, after.values()))
    return before == after


def _explain_extras(extras: Extras) -> None:
    for name, kind in (("reasoning", str), ("logprobs", list), ("token_ids", list), ("repaired", bool)):
        value: Any = getattr(extras, name)
        if not isinstance(value, kind):
            raise TypeError(f"extras.{name}: a {type(value).__name__}; it must be a {kind.__name__}")
        values.check(cast("object", value), f"extras.{name}")


def _check_usage(usage: Usage) -> None:
    for name in ("prompt", "completion", "cached", "calls"):
        number = getattr(usage, name)
        if type(number) is not int or not 0 <= number <= MAX_COUNT:
            _refuse(f"usage.{name}", number, f"a whole number from 0 to {MAX_COUNT}")
    usd: object = usage.usd
    if type(usd) not in (int, float) or not 0 <= usage.usd <= MAX_USD:
        _refuse("usage.usd", usd, f"a number of dollars from 0 to {MAX_USD:g}")


def _check_end(end: End) -> None:
    if end.outcome not in OUTCOMES:
        _refuse("end.outcome", end.outcome, f"one of {', '.join(OUTCOMES)}")
    if end.reason != "" and not is_reason(end.reason):
        _refuse("end.reason", end.reason, "one line of printable text, at most 200 characters")
    detail: Any = end.detail
    if not isinstance(detail, str):
        _refuse("end.detail", detail, "a string")
    if detail:
        values.check(detail, "end.detail")
    if end.error is not None:
        _refuse("end.error", end.error, "None: it is filled in when an agent raises")


def _refuse(name: str, value: object, expected: str) -> NoReturn:
    shown = (
        repr(value)[:40]
        if type(value) in (str, int, float, bool, type(None))
        else f"a {type(value).__name__}"
    )
    raise ValueError(f"{name}: {shown}; it must be {expected}")
