"""Print a row as a dialogue on a terminal.

Speakers are at the left margin, and all lines of a text after its first are indented, so that a model's text
cannot imitate another speaker, or an outcome.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from rich.console import Console
from rich.text import Text

from peerloom.observe.words import count, plain

MAX_CHARACTERS = 4000
"""The number of characters of a text that are shown."""

_INDENT = "    "


def print_row(console: Console, row: Mapping[str, Any]) -> None:
    """Print the messages before the first turn, the turns, the outcome and the result of a finished row."""
    provenance: Mapping[str, Any] = row["provenance"]
    label = provenance.get("label") or ""
    console.print(plain(f"── {row['id']} {label}".rstrip(), "dim"), soft_wrap=True)
    for speaker, text in _speech(row):
        console.print(Text.assemble(plain(f"{speaker}: ", "bold"), _indented(text)), soft_wrap=True)
    console.print(Text.assemble(plain("outcome: ", "bold"), _indented(_outcome(row))), soft_wrap=True)
    if row["result"] is not None:
        console.print(
            Text.assemble(plain("result: ", "bold"), _indented(_json(row["result"]))), soft_wrap=True
        )


def _speech(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each text with its speaker."""
    of_turns = sum("message" in turn for turn in row["turns"])
    for message in row["messages"][: len(row["messages"]) - of_turns]:
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
    more = len(text) - MAX_CHARACTERS
    shown = text if more <= 0 else f"{text[:MAX_CHARACTERS]}... ({count(more)} more characters)"
    return plain(shown.replace("\n", f"\n{_INDENT}"))
