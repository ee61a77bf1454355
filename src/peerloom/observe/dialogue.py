"""Print a row as a dialogue on a terminal.

Speakers are at the left margin, and all lines of a text after its first are indented, so that a model's text
cannot imitate another speaker, or an outcome.
"""

from collections.abc import Iterator, Mapping
from itertools import takewhile
from typing import Any

import orjson
from rich.console import Console
from rich.text import Text

from peerloom.observe.words import count, plain

MAX_CHARACTERS = 4000
"""The number of characters of a text that are shown, unless the row is shown whole."""

_INDENT = "    "


def print_row(
    console: Console, row: Mapping[str, Any], *, requests: bool = False, whole: bool = False
) -> None:
    """Print a finished row: its context or input, the turns, the outcome, the error, and the result.

    Args:
        console: where to print.
        row: the row.
        requests: also print the requests that were sent to models, before the turn that made them.
        whole: do not cut long texts.
    """
    label = row["provenance"].get("label") or ""
    console.print(plain(f"── {row['id']} {_one_line(str(label))}".rstrip(), "dim"), soft_wrap=True)
    limit = None if whole else MAX_CHARACTERS
    for speaker, text in utterances(row, requests=requests):
        name = plain(f"{_one_line(speaker)}: ", "bold")
        console.print(Text.assemble(name, _indented(text, limit)), soft_wrap=True)


def utterances(row: Mapping[str, Any], *, requests: bool = False) -> Iterator[tuple[str, str]]:
    """Yield each text of a row with its speaker, then its outcome, error, and result with their names."""
    yield from _opening(row)
    yield from _turns(row, requests=requests)
    yield from _ending(row)


def cut(text: str, limit: int | None = MAX_CHARACTERS) -> str:
    """Return the beginning of a text, with the number of characters that were left out."""
    more = 0 if limit is None else len(text) - limit
    return text if more <= 0 else f"{text[:limit]}... ({count(more)} more characters)"


def _as_json(value: Any) -> str:
    """Return a value as JSON text."""
    return orjson.dumps(value, default=str).decode()


def _content(message: Mapping[str, Any]) -> str:
    """Return the text of a message with its tool calls; as JSON if it has neither."""
    content: Any = message.get("content")
    tool_calls: Any = message.get("tool_calls")
    calls = [_tool_call(call) for call in tool_calls or ()]
    if not calls and content is None:
        return _as_json(message)
    text = [content if isinstance(content, str) else _as_json(content)] if content else []
    return "\n".join([*text, *calls])


def _opening(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the messages before the first one of a turn; the input if there are none."""
    messages: list[dict[str, Any]] = row["messages"]
    of_turns = [turn["message"].get("content") for turn in row["turns"] if "message" in turn]
    opening = list(takewhile(lambda message: message.get("content") not in of_turns, messages))
    for message in opening:
        yield str(message.get("role", "")), _content(message)
    if not opening and row["input"] is not None:
        yield "input", _as_json(row["input"])


def _turns(row: Mapping[str, Any], *, requests: bool) -> Iterator[tuple[str, str]]:
    missing = False
    for turn in row["turns"]:
        if requests:
            yield from _calls(turn)
            missing |= "calls" not in turn and bool(turn.get("usage", {}).get("calls"))
        text = _content(turn["message"]) if "message" in turn else None
        if text is not None:
            yield turn["agent"], text
        value = turn.get("value")
        if value is not None and value != text:
            yield f"{turn['agent']} (value)", value if isinstance(value, str) else _as_json(value)
        if value is None and text is None:
            yield turn["agent"], "(nothing)"
    if missing:
        yield "requests", "not recorded"


def _calls(turn: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each call of a turn to a model: its request (messages, then options), and the reply."""
    calls = turn.get("calls", ())
    for number, call in enumerate(calls, 1):
        which = f" {number} of {len(calls)}" if len(calls) > 1 else ""
        request, reply = call["request"], call["reply"]
        lines = [f"{message['role']}: {_content(message)}" for message in request["messages"]]
        lines += [f"{name}: {_as_json(value)}" for name, value in request.items() if name != "messages"]
        yield f"{turn['agent']}, request{which}", "".join(f"\n{_shifted(line)}" for line in lines)
        yield f"{turn['agent']}, reply{which}", _content({"content": reply.get("text"), **reply})


def _ending(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    reason = f" ({row['reason']})" if row["reason"] else ""
    detail = f": {row['detail']}" if row.get("detail") else ""
    yield "outcome", f"{row['outcome']}{reason}{detail}"
    if error := row.get("error"):
        yield "error", _error(error)
    if row["result"] is not None:
        yield "result", _as_json(row["result"])


def _error(error: Mapping[str, Any]) -> str:
    place = f" at {error['file']}:{error['line']}" if error.get("file") else ""
    role = error.get("role") or "the workflow"
    return f"{error.get('type')} in {role}{place}"


def _tool_call(call: Mapping[str, Any]) -> str:
    function: Mapping[str, Any] = call.get("function", {})
    arguments = function.get("arguments", "")
    text = arguments if isinstance(arguments, str) else _as_json(arguments)
    return f"calls {function.get('name')}({text})"


def _one_line(text: str) -> str:
    return text.replace("\n", " ")


def _shifted(text: str) -> str:
    """Indent all lines of a text but its first once more, below the indentation of all."""
    return text.replace("\n", f"\n{_INDENT}")


def _indented(text: str, limit: int | None) -> Text:
    return plain(cut(text, limit).replace("\n", f"\n{_INDENT}"))
