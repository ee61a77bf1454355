"""Find the document in a row of web data, such as Common Crawl and its derivatives.

The document is in `text`, `raw_content`, `content` or `html`, or in the field that the user names. Its id is
in the row itself or in a group of WARC headers, `WARC-Record-ID` or `warc_record_id`.
"""

import re
from typing import Any, NamedTuple, cast

from peerloom.errors import RowError

FIELDS = ("text", "raw_content", "content", "html")
_GROUPS = ("metadata", "headers", "warc_headers", "warc-headers", "warc headers")
_IDS = ("id", "doc-id", "warc-record-id")
_URLS = ("url", "warc-target-uri")
_HTML = re.compile(r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html)\b", re.I | re.S)

Label = str | int | None


class Page(NamedTuple):
    """A document as found in a row: `body` is HTML if `html` is set, else plain text."""

    id: Label
    url: str | None
    title: str
    body: str
    html: bool


def read_row(data: Any, field: str = "") -> Page:
    """Return the document in a field of an input row, by default in the first of `FIELDS` that it has.

    Raises:
        RowError: if the field is missing or wrong; the text names it.
    """
    if not isinstance(data, dict):
        raise RowError(f"not a document but {type(data).__name__}: a row is an object with a field 'text'")
    row = cast("dict[str, Any]", data)
    name = field or next((known for known in FIELDS if row.get(known) is not None), "")
    if name not in row:
        sought = repr(name) if name else " or ".join(map(repr, FIELDS))
        has = ", ".join(map(repr, row)) or "none"
        raise RowError(f"no document: there is no field {sought} (there are: {has}); see recipe.field")
    body = row[name]
    if not isinstance(body, str):
        raise RowError(f"no document: {name!r} is {type(body).__name__}, not text")
    labels = _labels(row)
    return Page(
        id=next((labels[key] for key in _IDS if key in labels), None),
        url=next((str(labels[key]) for key in _URLS if key in labels), None),
        title=str(labels.get("title", "")),
        body=body,
        html=name == "html" or _HTML.match(body) is not None,
    )


def _labels(row: dict[str, Any]) -> dict[str, str | int]:
    """Return the strings and integers of the row and its header groups, by lower-case name with dashes."""
    found: dict[str, str | int] = {}
    for group in (*(row.get(name) for name in _GROUPS), row):
        if isinstance(group, dict):
            for key, value in cast("dict[str, Any]", group).items():
                if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
                    found[key.lower().replace("_", "-")] = value
    return found
