"""Show a run in a notebook: its counts and some dialogues, as HTML.

Texts of models are escaped, and shown in a frame that runs no scripts and loads nothing.
"""

from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any

from peerloom.observe.dialogue import cut, utterances
from peerloom.observe.words import count
from peerloom.terminal.printable import printable

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; font: 13px/1.4 system-ui, sans-serif }
h2 { font-size: 1em; margin: 1em 0 0; opacity: .6 }
dt { font-weight: bold; margin-top: .4em }
dd { margin-left: 1.5em; white-space: pre-wrap; overflow-wrap: anywhere }
"""


def result_html(title: str, outcomes: Mapping[str, int], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a sandboxed frame with a title, the number of rows of each outcome, and some rows."""
    counts = "".join(f"<li>{_text(name)}: {count(number)}" for name, number in outcomes.items())
    page = (
        '<!doctype html><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<style>{_STYLE}</style><p>{_text(title)}<ul>{counts}</ul>{''.join(map(_row, rows))}"
    )
    style = "width: 100%; height: 30em; border: 1px solid #8886; resize: vertical"
    return f'<iframe sandbox="" srcdoc="{escape(page)}" style="{style}"></iframe>'


def _row(row: Mapping[str, Any]) -> str:
    label = row["provenance"].get("label") or ""
    return f"<h2>{_text(row['id'])} {_text(str(label))}</h2><dl>{''.join(_lines(row))}</dl>"


def _lines(row: Mapping[str, Any]) -> Iterator[str]:
    for speaker, text in utterances(row):
        yield f"<dt>{_text(speaker)}<dd>{_text(cut(text))}"


def _text(text: str) -> str:
    return escape(printable(text))
