"""What counts as an answer: free text, one of some choices, JSON after a schema, or a parser's word.

Each kind reads a reply and returns its value, or raises ValueError with a text the model can act on:
it is shown to the model when it is asked again. Before that, a reply with slips may be mended. Services
are told of choices and schemas beforehand and many enforce them, but not all do: a reply is always read here.
"""

import re
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

from peerloom.agents.jsontext import mend_json, read_json
from peerloom.agents.schemas import validator_of
from peerloom.terminal.printable import is_blank


class Answer:
    """A kind of answer. `choices` and `schema` are what a request tells the service of it."""

    choices: tuple[str, ...] = ()
    schema: dict[str, Any] | None = None

    def read(self, text: str) -> Any:
        """The value of a reply, which comes stripped.

        Raises:
            ValueError: what is wrong with the reply, and what to reply instead.
        """
        raise NotImplementedError

    def mend(self, text: str) -> Any:
        """The value of a reply that was refused, if it is clear what was meant.

        Raises:
            ValueError: if it is not.
        """
        raise ValueError("it cannot be mended")


class FreeText(Answer):
    """Any text but none at all. The text is the message, so there is no value beside it."""

    def read(self, text: str) -> None:
        """Refuse an empty reply."""
        if is_blank(text):
            raise ValueError("it is empty: reply in words")


class Parsed(Answer):
    """Whatever a function of the text returns; it refuses a reply by raising ValueError."""

    def __init__(self, parse: Callable[[str], Any]) -> None:
        self._parse = parse

    def read(self, text: str) -> Any:
        """The function's value."""
        return self._parse(text)


class Choice(Answer):
    """Exactly one of some strings.

    A reply that is a choice is taken, whatever its case and punctuation, and so is a longer one that
    names a single choice: "The answer is (B)." There, a choice that is also an English word ("A",
    "I") counts only where it stands out as an answer.
    """

    def __init__(self, choices: Iterable[str]) -> None:
        self.choices = tuple(choices)

    def read(self, text: str) -> str:
        """The one choice that the reply states."""
        if text in self.choices:
            return text
        bare = _bare(text)
        stated = [choice for choice in self.choices if _bare(choice) == bare]
        if not stated:
            stated = [choice for choice in self.choices if _named(choice).search(text)]
        if len(stated) == 1:
            return stated[0]
        problem = f"it names {' and '.join(stated)}" if stated else "it names none of the choices"
        raise ValueError(f"{problem}: reply with exactly one of {', '.join(self.choices)}")


class Json(Answer):
    """A JSON value that follows a JSON schema; a Markdown fence around it is forgiven.

    Raises:
        ConfigError: if the schema is no JSON schema, naming the place in it.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = self.schema = schema
        _ = self._validator

    def read(self, text: str) -> Any:
        """The value, checked."""
        return self._checked(read_json(_unfenced(text)))

    def mend(self, text: str) -> Any:
        """The value of a reply that is almost JSON, checked."""
        return self._checked(mend_json(text))

    def _checked(self, value: Any) -> Any:
        try:
            wrong = next(self._validator.iter_errors(value), None)
        except (RecursionError, OverflowError, ArithmeticError) as error:
            raise ValueError("it is too deep, or its numbers too large, to be checked") from error
        if wrong is not None:
            raise ValueError(f"at {_short(wrong.json_path)}: {_short(wrong.message)}")
        return value

    @cached_property
    def _validator(self) -> Any:
        return validator_of(self._schema)

    def __getstate__(self) -> dict[str, Any]:
        return {"schema": self._schema, "_schema": self._schema}


def whole_sentences(text: str) -> str:
    """A text that was cut somewhere, up to its last whole sentence; if it has none, up to a word.

    >>> whole_sentences("Ice floats. It is less dense. Bec")
    'Ice floats. It is less dense.'
    """
    ends = [found.end() for found in _SENTENCE_END.finditer(text)]
    if ends:
        return text[: ends[-1]]
    return text.rsplit(None, 1)[0] if len(text.split(None, 1)) > 1 else text


# An end mark, perhaps in quotes or brackets, before a space; not the one of a list number.
_SENTENCE_END = re.compile(r"(?<!^\w)[.!?…]+[\"'”’)\]*]*(?=\s|$)|[。！？]", re.MULTILINE)  # noqa: RUF001
_FENCE = "```"
_SHOWN = 150  # characters, of either end
_AROUND = " \t\r\n.,:;!?()[]{}<>\"'`*_"
_WORDS = ("A", "I", "a")


def _unfenced(text: str) -> str:
    """What is inside a Markdown fence that encloses all of the text."""
    if len(text) < 2 * len(_FENCE) or not (text.startswith(_FENCE) and text.endswith(_FENCE)):
        return text
    return text[len(_FENCE) : -len(_FENCE)].removeprefix("json").strip()


def _short(text: str) -> str:
    """Both ends of what the checker says: a value that it repeats comes first."""
    return text if len(text) <= 2 * _SHOWN else f"{text[:_SHOWN]} ... {text[-_SHOWN:]}"


def _bare(text: str) -> str:
    return text.strip(_AROUND).casefold()


def _named(choice: str) -> re.Pattern[str]:
    """Finds a choice inside a sentence; a single letter only in its own case."""
    exact = rf"(?<!\w){re.escape(choice)}(?!\w)"
    if choice in _WORDS:
        marks = r"[\"'`*(\[]*"
        exact = rf"(?:\b(?:answer|option|choice|is)\b[\s:]*{marks}{exact}|{exact}(?=[)\]\"`*:.]|$))"
    return re.compile(exact, 0 if len(choice) == 1 else re.IGNORECASE)
