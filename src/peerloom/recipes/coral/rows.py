"""Read multiple-choice rows with `question`, `options` and `answer`, such as those of MMLU-Pro."""

from string import ascii_uppercase
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from peerloom.errors import RowError


class ChoiceRow(msgspec.Struct):
    """The fields that the recipe reads; a row may have further ones."""

    question: Annotated[str, Meta(min_length=1)]
    options: Annotated[list[str], Meta(min_length=2, max_length=len(ascii_uppercase))]
    answer: str | int
    """The right option: its letter, its index from 0, or its text."""

    @property
    def letters(self) -> str:
        """The letters of the options: `"ABCD"` for four options."""
        return ascii_uppercase[: len(self.options)]

    @property
    def right(self) -> str:
        """The letter of the right option.

        Raises:
            RowError: if `answer` is not an option.
        """
        by_name = dict(zip(self.options, self.letters, strict=True)) | {
            letter: letter for letter in self.letters
        }
        if isinstance(self.answer, str) and self.answer in by_name:
            return by_name[self.answer]
        if isinstance(self.answer, int) and 0 <= self.answer < len(self.options):
            return self.letters[self.answer]
        raise RowError(
            f"'answer' is {self.answer!r}, which names none of the {len(self.options)} options: give a "
            f"letter of {self.letters}, an index from 0 or the text of an option"
        )


def read_row(data: Any) -> ChoiceRow:
    """Read the fields of an input row.

    Raises:
        RowError: if a field is missing or wrong; the text names it.
    """
    try:
        return msgspec.convert(data, ChoiceRow)
    except msgspec.ValidationError as error:
        raise RowError(f"not a multiple-choice question: {error}") from error


def check_row(data: Any) -> None:
    """Raise RowError unless a row is a multiple-choice question with a right option."""
    _ = read_row(data).right
