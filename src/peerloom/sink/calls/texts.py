"""Replace the texts of requests by references to those that the row has already."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

SHORTEST = 24
"""Shorter texts are repeated rather than referred to."""

SHORTEST_LATER = 192
"""Shorter texts that are new in a later request of a role are not searched for others, which takes time."""

MOST_LEAVES = 16
"""The number of texts of the input that can be referred to, the first ones."""

_PARAGRAPH = "\n\n"

Part = str | int | list[int]
"""A text, or a reference: `n` to the text n of the input, `-1 - n` to paragraph n, `[n]` to the turn n."""


class RowTexts:
    """The texts of a row that requests may refer to.

    These are the texts of the input, the messages of earlier turns, and the paragraphs of the first request
    of each role.

    Attributes:
        input: returns the input of the task; it is called when its texts are needed.
    """

    def __init__(self, input: Callable[[], Any]) -> None:
        self.input = input
        self._leaves: list[str] | None = None
        self._paragraphs: list[str] = []
        self._numbers: dict[str, int] = {}
        self._contents: list[str] = []
        self._turns: dict[str, int] = {}

    @property
    def turns(self) -> int:
        """The number of turns."""
        return len(self._contents)

    def forget_input(self) -> None:
        """Drop the texts of the input to save memory; they are read again when they are needed."""
        self._leaves = None

    def add_turn(self, content: Any) -> None:
        """Add the content of a turn's message."""
        text = content if isinstance(content, str) else ""
        if len(text) >= SHORTEST:
            self._turns.setdefault(text, len(self._contents))
        self._contents.append(text)

    def shorten(self, text: str, *, is_first: bool) -> str | list[Part]:
        """Replace the known parts of a text by references.

        Args:
            text: the text.
            is_first: add its new paragraphs, which later texts may refer to.
        """
        if len(text) < SHORTEST:
            return text
        turn = self._turns.get(text)
        if turn is not None:
            return [[turn]]
        if not is_first and len(text) < SHORTEST_LATER:
            return text
        parts = _joined(self._split(text, [each for each in self._known() if each[0] in text]))
        if is_first:
            self._add_paragraphs(parts)
        return text if parts == [text] else parts

    def restore(self, stored: str | list[Part], *, is_first: bool) -> str:
        """Return the text that was shortened.

        Raises:
            LookupError: if it refers to a text that the row does not have.
        """
        if isinstance(stored, str):
            if is_first:
                self._add_paragraphs([stored])
            return stored
        text = "".join([part if isinstance(part, str) else self._text(part) for part in stored])
        if is_first:
            self._add_paragraphs(stored)
        return text

    def _text(self, part: int | list[int]) -> str:
        if isinstance(part, list):
            return self._contents[part[0]]
        return self._input_texts()[part] if part >= 0 else self._paragraphs[-1 - part]

    def _input_texts(self) -> list[str]:
        if self._leaves is None:
            self._leaves = []
            _add_leaves(self.input(), self._leaves)
        return self._leaves

    def _known(self) -> Iterator[tuple[str, Part]]:
        """Yield the texts to look for within others: that of the last turn, and those of the input."""
        if self._contents and len(self._contents[-1]) >= SHORTEST:
            yield self._contents[-1], [len(self._contents) - 1]
        for number, leaf in enumerate(self._input_texts()):
            yield leaf, number

    def _add_paragraphs(self, parts: Iterable[Part]) -> None:
        for part in parts:
            if isinstance(part, str) and len(part) >= SHORTEST:
                for paragraph in part.split(_PARAGRAPH):
                    if len(paragraph) >= SHORTEST and paragraph not in self._numbers:
                        self._numbers[paragraph] = -1 - len(self._paragraphs)
                        self._paragraphs.append(paragraph)

    def _split(self, text: str, known: Sequence[tuple[str, Part]]) -> list[Part]:
        for position, (part, reference) in enumerate(known):
            before, hit, after = text.partition(part)
            if hit:
                left, right = known[position + 1 :], known[position:]
                return [*self._split(before, left), reference, *self._split(after, right)]
        parts: list[Part] = []
        for paragraph in text.split(_PARAGRAPH):
            parts += [_PARAGRAPH, self._numbers.get(paragraph, paragraph)]
        return parts[1:]


def _joined(parts: Iterable[Part]) -> list[Part]:
    """Join adjacent texts, and drop empty ones."""
    joined: list[Part] = []
    for part in parts:
        last = joined[-1] if joined else None
        if isinstance(part, str) and isinstance(last, str):
            joined[-1] = last + part
        elif part != "":
            joined.append(part)
    return joined


def _add_leaves(value: Any, leaves: list[str]) -> None:
    """Add the long texts within a JSON value to the leaves, until there are enough."""
    if isinstance(value, str):
        if len(value) >= SHORTEST:
            leaves.append(value)
    elif isinstance(value, dict | list):
        items = (
            cast("dict[str, Any]", value).values() if isinstance(value, dict) else cast("list[Any]", value)
        )
        for each in items:
            if len(leaves) == MOST_LEAVES:
                return
            _add_leaves(each, leaves)
