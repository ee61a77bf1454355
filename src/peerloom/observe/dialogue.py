"""A row as a dialogue on a terminal.

Who spoke stands at the left margin, and whatever a model wrote is indented below its first line, so that no
text can pass for another one's, or for an outcome.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from rich.console import Console
from rich.text import Text

from peerloom.observe.words import count, plain

LONGEST = 4000
"""Characters of a text that are shown."""

_INDENT = "    "


def print_row(console: Console, row: Mapping[str, Any]) -> None:
    """Print the messages before the first turn, the turns, the outcome and the result of a finished row."""
    made: Mapping[str, Any] = row["provenance"]
    label = made.get("label") or ""
    console.print(plain(f"── {row['id']} {label}".rstrip(), "dim"), soft_wrap=True)
    for who, text in _said(row):
        console.print(Text.assemble(plain(f"{who}: ", "bold"), _indented(text)), soft_wrap=True)
    console.print(Text.assemble(plain("outcome: ", "bold"), _indented(_outcome(row))), soft_wrap=True)
    if row["result"] is not None:
        console.print(
            Text.assemble(plain("result: ", "bold"), _indented(_json(row["result"]))), soft_wrap=True
        )


def _said(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    spoken = sum("message" in turn for turn in row["turns"])
    for message in row["messages"][: len(row["messages"]) - spoken]:
        yield str(message.get("role", "")), _content(message)
    for turn in row["turns"]:
        text = _content(turn["message"]) if "message" in turn else None
        if text is not None:
            yield turn["agent"], text
        value = turn.get("value")
        if value is not None and value != text:
            yield f"{turn['agent']} (value)", value if isinstance(value, str) else _json(value)
        if value is None and text is None:
            yield turn["agent"], "(nothing)"


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else _json(content if content is not None else message)


def _outcome(row: Mapping[str, Any]) -> str:
    reason = f" ({row['reason']})" if row["reason"] else ""
    detail = f": {row['detail']}" if row.get("detail") else ""
    return f"{row['outcome']}{reason}{detail}"


def _json(value: Any) -> str:
    return orjson.dumps(value, default=str).decode()


def _indented(text: str) -> Text:
    more = len(text) - LONGEST
    shown = text if more <= 0 else f"{text[:LONGEST]}... ({count(more)} more characters)"
    return plain(shown.replace("\n", f"\n{_INDENT}"))
