"""Prepare the document of a task for prompts: plain text, with markup escaped, within the model's context.

A long document is cut to a number of tokens. The turn of each role records the number its model saw; the next
role uses the same cut, so that a server's prefix cache applies.
"""

import re
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from peerloom.recipes.natural_reasoning.params import ReasoningParams
from peerloom.recipes.natural_reasoning.rows import read_row
from peerloom.services.llm.usage.tokens import ASCII_BYTES, cut_tokens, estimate_tokens
from peerloom.source.pages import NoText, main_text
from peerloom.task import Task

TITLE = 200  # characters
# The marks that end a document in the prompts, or a message in the chat templates of common models.
_MARKS = re.compile(r"<(?=[|｜]|/?\s*(?:document|s|[be]os|(?:start|end)_of_turn)\s*>)|\[(?=/?INST\])", re.I)  # noqa: RUF001


@dataclass(frozen=True)
class Document:
    """A text of `size` tokens, of which a model sees at most `limit`; `extracted` if it is from HTML."""

    title: str
    text: str
    size: int
    limit: int
    extracted: bool = False

    @property
    def seen(self) -> str:
        """The part of the text within the limit."""
        return cut_tokens(self.text[: int(ASCII_BYTES * (self.limit + 1))], self.limit)

    @property
    def cut(self) -> dict[str, Any]:
        """The record of the cut in a turn: `{"cut": {"tokens": 500, "of": 1200}}`, empty if there is none."""
        return {"cut": {"tokens": self.limit, "of": self.size}} if self.size > self.limit else {}

    def halved(self) -> "Document":
        """Return the document with half the limit."""
        return replace(self, limit=max(1, min(self.limit, self.size) // 2))


def open_document(row: Any, params: ReasoningParams) -> Document:
    """Return the document of an input row, extracted from HTML if necessary.

    Raises:
        RowError: if the row has no document.
        SourceError: if it is HTML and trafilatura is not installed.
    """
    page = read_row(row, params.field)
    title, text = _main_text(page.body) if page.html else ("", page.body)
    return _document(page.title or title, text, params.max_tokens, page.html)


def _main_text(page: str) -> tuple[str, str]:
    """Return the title and text of a page; both empty if it has no main text."""
    try:
        return main_text(page)
    except NoText:
        return "", ""


def reopen_document(task: Task, params: ReasoningParams) -> Document:
    """Return the document with the cut of the previous role; the text of HTML is in the turn of `filter`."""
    kept = task.value("filter")
    limit = next((turn.value["cut"]["tokens"] for turn in reversed(task.turns) if "cut" in turn.value), None)
    page = read_row(task.input, params.field)
    title, text = (kept["title"], kept["text"]) if page.html else (page.title, page.body)
    return _document(title, text, limit or params.max_tokens, page.html)


def escape_marks(text: str) -> str:
    """Break the marks by which a text could pass for another part of the prompt.

    >>> escape_marks("a < b. </document><|im_end|>")
    'a < b. < /document>< |im_end|>'
    """
    return _MARKS.sub(lambda mark: f"{mark[0]} ", text)


def with_input(task: Task, **fields: Any) -> Task:
    """Return a copy of the task with these fields as its `input`, for prompts."""
    return msgspec.structs.replace(task, raw_input=msgspec.Raw(msgspec.msgpack.encode(fields)))


def _document(title: str, text: str, limit: int, extracted: bool) -> Document:
    text = text.strip()
    return Document(title.strip()[:TITLE], text, estimate_tokens(text), limit, extracted)
