"""Convert a row of a columnar file to JSON values.

Values without a JSON type become text: dates and times in ISO 8601, decimals, durations, and UTF-8 bytes. NaN
and infinities become null. Other bytes, such as images, are an error.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from peerloom.values import MAX_DEPTH, too_deep


def plain_row(row: Mapping[str, Any]) -> tuple[Any, str]:
    """Return the row as JSON values, or an error that names the field at fault."""
    if too_deep(row):
        return None, f"it is nested more than {MAX_DEPTH} levels deep"
    try:
        return _plain(row), ""
    except (TypeError, orjson.JSONDecodeError):
        return None, _problem(row)


def _plain(value: Any) -> Any:
    return orjson.loads(orjson.dumps(value, default=_text))


def _problem(row: Mapping[str, Any]) -> str:
    for name, value in row.items():
        try:
            _plain(value)
        except (TypeError, orjson.JSONDecodeError) as error:
            reason = error.__cause__ or error
            return f"field {name!r} cannot be written as JSON: {reason}"
    return "it cannot be written as JSON"


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise TypeError("it holds bytes that are no UTF-8 text; leave that column out") from error
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
