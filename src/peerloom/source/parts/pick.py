"""Pick the field that becomes the row (`source.field`), by its dotted path."""

from difflib import get_close_matches
from typing import Any, cast


def pick(value: Any, field: str, where: str) -> tuple[Any, str]:
    """Return the row at a dotted path, or an error. A text becomes `{"text": ...}`.

    Args:
        value: the raw row.
        field: the path, e.g. `result` or `result.question`.
        where: the name of the row in errors.
    """
    at = ""
    for name in field.split("."):
        if not isinstance(value, dict):
            kind = "it is empty" if value is None else "it holds no fields"
            return None, f"{where}: no field {field!r} (source.field): {at or 'the row'}: {kind}"
        fields = cast("dict[str, Any]", value)
        if name not in fields:
            return None, f"{where}: no field {field!r} (source.field): {_hint(fields, name, at)}"
        value, at = fields[name], f"{at}.{name}" if at else name
    if isinstance(value, dict):
        return cast("dict[str, Any]", value), ""
    if isinstance(value, str):
        return {"text": value}, ""
    return None, f"{where}: field {field!r} (source.field) must be an object or a text to be a row"


def _hint(fields: dict[str, Any], name: str, at: str) -> str:
    close = get_close_matches(name, fields, n=1)
    if close:
        return f"did you mean {at + '.' if at else ''}{close[0]}?"
    return f"{at or 'the row'} has: {', '.join(list(fields)[:20]) or 'none'}"
