"""Read answers from replies: free text, one of some choices, JSON with a schema, or the result of a parser.

Each kind of answer parses a reply and returns its value, or raises ValueError with a text that is shown to
the model when it is asked again. Before that, a malformed reply may be repaired. Requests include choices and
schemas and many services enforce them, but not all do: every reply is checked here.
"""

import re
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

from peerloom.agents.jsontext import read_json, repair_json
from peerloom.agents.schemas import validator_of
from peerloom.terminal.printable import is_blank


class Answer:
    """A kind of answer. `choices` and `schema` are sent with a request."""

    choices: tuple[str, ...] = ()
    schema: dict[str, Any] | None = None

    def read(self, text: str) -> Any:
        """Return the value of a stripped reply.

        Raises:
            ValueError: if the reply is not an answer; the text says how to reply instead.
        """
        raise NotImplementedError

    def repair(self, text: str) -> Any:
        """Return the value of a reply that `read` refused, if its intended value is clear.

        Raises:
            ValueError: if the reply cannot be repaired.
        """
        raise ValueError("it cannot be repaired")


class FreeText(Answer):
    """Any non-empty text. The text is the turn's message, so there is no separate value."""

    def read(self, text: str) -> None:
        """Raise ValueError for an empty reply."""
        if is_blank(text):
            raise ValueError("it is empty: reply with text")


class Parsed(Answer):
    """The result of a function of the text, which raises ValueError to refuse a reply."""

    def __init__(self, parse: Callable[[str], Any]) -> None:
        self._parse = parse

    def read(self, text: str) -> Any:
        """Return the function's result."""
        return self._parse(text)


class Choice(Answer):
    """Exactly one of some strings.

    Case and punctuation are ignored. A longer reply that names a single choice is accepted too: "The answer
    is (B)." There, a choice that is also an English word ("A", "I") counts only where it is marked as an
    answer.
    """

    def __init__(self, choices: Iterable[str]) -> None:
        self.choices = tuple(choices)

    def read(self, text: str) -> str:
        """Return the one choice that the reply states."""
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
    """A JSON value that follows a JSON schema; a Markdown fence around it is removed.

    Raises:
        ConfigError: if the schema is not a JSON schema; the text names the place.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = self.schema = schema
        _ = self._validator

    def read(self, text: str) -> Any:
        """Return the checked value."""
        return self._checked(read_json(_unfenced(text)))

    def repair(self, text: str) -> Any:
        """Return the checked value of a reply that is almost JSON."""
        return self._checked(repair_json(text))

    def _checked(self, value: Any) -> Any:
        try:
            violation = next(self._validator.iter_errors(value), None)
        except (RecursionError, OverflowError, ArithmeticError) as error:
            raise ValueError("it is too deep, or its numbers too large, to be checked") from error
        if violation is not None:
            raise ValueError(f"at {_short(violation.json_path)}: {_short(violation.message)}")
        return value

    @cached_property
    def _validator(self) -> Any:
        return validator_of(self._schema)

    def __getstate__(self) -> dict[str, Any]:
        return {"schema": self._schema, "_schema": self._schema}


def whole_sentences(text: str) -> str:
    """Return a truncated text up to its last whole sentence, or its last whole word if there is none.

    >>> whole_sentences("Ice floats. It is less dense. Bec")
    'Ice floats. It is less dense.'
    """
    ends = [found.end() for found in _SENTENCE_END.finditer(text)]
    if ends:
        return text[: ends[-1]]
    return text.rsplit(None, 1)[0] if len(text.split(None, 1)) > 1 else text


# An end mark, with closing quotes or brackets, before a space; not the full stop of a list number.
_SENTENCE_END = re.compile(r"(?<!^\w)[.!?…]+[\"'”’)\]*]*(?=\s|$)|[。！？]", re.MULTILINE)  # noqa: RUF001
_FENCE = "```"
_SHOWN = 150  # characters of each end
_AROUND = " \t\r\n.,:;!?()[]{}<>\"'`*_"
_WORDS = ("A", "I", "a")


def _unfenced(text: str) -> str:
    """Return the content of a Markdown fence around the whole text, else the text."""
    if len(text) < 2 * len(_FENCE) or not (text.startswith(_FENCE) and text.endswith(_FENCE)):
        return text
    return text[len(_FENCE) : -len(_FENCE)].removeprefix("json").strip()


def _short(text: str) -> str:
    """Return both ends of a validator's message, since the message begins with the invalid value."""
    return text if len(text) <= 2 * _SHOWN else f"{text[:_SHOWN]} ... {text[-_SHOWN:]}"


def _bare(text: str) -> str:
    return text.strip(_AROUND).casefold()


def _named(choice: str) -> re.Pattern[str]:
    """Return a pattern that finds a choice in a sentence; the case of a single letter matters."""
    exact = rf"(?<!\w){re.escape(choice)}(?!\w)"
    if choice in _WORDS:
        marks = r"[\"'`*(\[]*"
        exact = rf"(?:\b(?:answer|option|choice|is)\b[\s:]*{marks}{exact}|{exact}(?=[)\]\"`*:.]|$))"
    return re.compile(exact, 0 if len(choice) == 1 else re.IGNORECASE)
