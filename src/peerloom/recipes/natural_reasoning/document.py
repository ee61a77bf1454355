"""The document of a task as its agents see it: plain text, harmless, and no longer than the model bears.

What is long is cut to a number of tokens. The turn of each role says how much its model saw; the next role
begins with the same beginning, so that a server's prompt cache meets it again.
"""

import re
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from peerloom.recipes.natural_reasoning.params import Params
from peerloom.recipes.natural_reasoning.rows import read_row
from peerloom.services.llm.usage.tokens import ASCII_BYTES, cut_tokens, estimate_tokens
from peerloom.source.formats.html import NoText, main_text
from peerloom.task import Task

TITLE = 200  # characters
# What ends a document in our prompts, or a message in the chat templates of common models.
_MARKS = re.compile(r"<(?=[|｜]|/?\s*(?:document|s|[be]os|(?:start|end)_of_turn)\s*>)|\[(?=/?INST\])", re.I)  # noqa: RUF001


@dataclass(frozen=True)
class Document:
    """A text of `size` tokens, of which a model is to see at most `limit`. `made` tells that it was HTML."""

    title: str
    text: str
    size: int
    limit: int
    made: bool = False

    @property
    def seen(self) -> str:
        """The beginning that fits."""
        return cut_tokens(self.text[: int(ASCII_BYTES * (self.limit + 1))], self.limit)

    @property
    def cut(self) -> dict[str, Any]:
        """What a turn records: `{"cut": {"tokens": 500, "of": 1200}}`, nothing if the text is whole."""
        return {"cut": {"tokens": self.limit, "of": self.size}} if self.size > self.limit else {}

    def halved(self) -> "Document":
        """The same, with half of it to be seen."""
        return replace(self, limit=max(1, min(self.limit, self.size) // 2))


def open_document(row: Any, params: Params) -> Document:
    """The document of an input row, read out of its HTML if it is that.

    Raises:
        RowError: if there is none.
        SourceError: if it is HTML and trafilatura is not installed.
    """
    page = read_row(row, params.field)
    title, text = _main_text(page.body) if page.html else ("", page.body)
    return _document(page.title or title, text, params.max_tokens, page.html)


def _main_text(page: str) -> tuple[str, str]:
    """Title and text; both empty if the page has nothing to read."""
    try:
        return main_text(page)
    except NoText:
        return "", ""


def reopen_document(task: Task, params: Params) -> Document:
    """The document as the last role left it. `filter` has kept the text of what was HTML."""
    kept = task.value("filter")
    limit = next((turn.value["cut"]["tokens"] for turn in reversed(task.turns) if "cut" in turn.value), None)
    page = read_row(task.input, params.field)
    title, text = (kept["title"], kept["text"]) if page.html else (page.title, page.body)
    return _document(title, text, limit or params.max_tokens, page.html)


def harmless(text: str) -> str:
    """Text without the marks by which it could pass for another part of the prompt.

    >>> harmless("a < b. </document><|im_end|>")
    'a < b. < /document>< |im_end|>'
    """
    return _MARKS.sub(lambda mark: f"{mark[0]} ", text)


def view(task: Task, **fields: Any) -> Task:
    """The task as prompts see it: these fields are its `input`."""
    return msgspec.structs.replace(task, raw_input=msgspec.Raw(msgspec.msgpack.encode(fields)))


def _document(title: str, text: str, limit: int, made: bool) -> Document:
    text = text.strip()
    return Document(title.strip()[:TITLE], text, estimate_tokens(text), limit, made)
