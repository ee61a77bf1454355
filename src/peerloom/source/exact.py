"""Find values that a JSON parser would change without a word, such as integers of more than 64 bits."""

import json
from typing import Any

from peerloom.values import MAX_DEPTH, check, too_deep

_DIGITS = bytes(ord("0") if chr(byte).isdecimal() and byte < 128 else 32 for byte in range(256))
_LONG = b"0" * 19  # digits of the smallest integers that need more than 63 bits


def problem_in(data: bytes, value: Any) -> str:
    """Return the reason why a row cannot be kept as it is; empty if it can.

    Args:
        data: the row as JSON.
        value: the same, parsed.
    """
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and too_deep(value):
        return f"nested more than {MAX_DEPTH} levels deep"
    if _LONG not in data.translate(_DIGITS):  # a microsecond for 2 KB
        return ""
    try:
        check(json.loads(data), "row")
    except ValueError as error:
        return str(error)
    return ""
