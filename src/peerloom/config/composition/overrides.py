"""Parse overrides: `key=value` texts, as on the command line.

Values follow OmegaConf's grammar: numbers, `true`, `null`, `[a, b]`, `{a: 1}`, text with or without quotes.
Any other text is taken literally, so that paths need no quotes. `${...}` stays in a value, and is
interpolated after everything is merged.
"""

import re
from collections.abc import Generator, Mapping, Sequence
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import GrammarParseError
from omegaconf.grammar_parser import parse
from omegaconf.grammar_visitor import GrammarVisitor

from peerloom.config.secrets import refuse_secrets
from peerloom.errors import ConfigError

_TOKENS = {
    "MATCHING_QUOTE_CLOSE": "closing quote",
    "BRACKET_CLOSE": "']'",
    "BRACE_CLOSE": "'}'",
    "COLON": "':'",
    "'<EOF>'": "the end",
    "<EOF>": "the end",
}
"""The names of OmegaConf's tokens in messages to the user."""


def parse_override(text: str) -> tuple[str, Any]:
    """Return the key and the value of `key=value`.

    Raises:
        ConfigError: if the text has another form, or the value is a secret, or more than one value.
    """
    key, equals, value = text.partition("=")
    if not equals or not all(map(str.isidentifier, key.split("."))):
        raise ConfigError(f"{text}: not an override: write key=value, e.g. limit=20 or source.path=q.jsonl")
    refuse_secrets({key: value})
    values: list[Any]
    try:
        values = _parse(f"[{value}]")  # as a list, to distinguish several values from one
    except GrammarParseError as error:
        if value[:1] in ("[", "{", "'", '"'):
            raise ConfigError(f"{text}: {_problem(value)}; a quote in a value is written \\' ") from error
        values = [value]
    if len(values) > 1:
        raise ConfigError(f"{text}: {key} takes one value: a list is written [a,b], a comma in a name quoted")
    return key, values[0] if values else ""


def keys(texts: Sequence[str]) -> dict[str, Any]:
    """Return the nested values of plain `key=value` texts, without groups and files.

    Raises:
        ConfigError: for a text that is not an override.
    """
    nested: DictConfig = OmegaConf.create()
    for text in texts:
        key, value = parse_override(text)
        OmegaConf.update(nested, key, literal(value), force_add=True)
    return cast("dict[str, Any]", OmegaConf.to_container(nested, resolve=True))


def literal(value: Any) -> Any:
    """Return the value with `${` escaped, so that OmegaConf does not interpolate it."""
    if isinstance(value, str):
        return value.replace("${", "\\${")
    if isinstance(value, Mapping):
        return {key: literal(inner) for key, inner in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [literal(inner) for inner in cast("Sequence[Any]", value)]
    return value


class _Values(GrammarVisitor):
    """Visitor that evaluates OmegaConf's parse trees, but leaves interpolations unchanged."""

    def __init__(self) -> None:
        unused = cast("Any", None)  # the callbacks for interpolations
        super().__init__(unused, unused, unused)

    def visitInterpolation(self, ctx: Any) -> str:
        return ctx.getText()

    def visitQuotedValue(self, ctx: Any) -> str:
        text: str = ctx.getText()
        return re.sub(rf"\\+(?={text[0]}|$)", lambda found: found[0][: len(found[0]) // 2], text[1:-1])

    def visitSequence(self, ctx: Any) -> Generator[Any, None, None]:
        if len(ctx.element()) <= len(ctx.COMMA()):
            raise GrammarParseError(f"an element is missing in {ctx.getText()!r}")
        yield from super().visitSequence(ctx)


def _parse(text: str) -> Any:
    return cast("Any", _Values().visit(parse(text, "singleElement", "VALUE_MODE")))


def _problem(text: str) -> str:
    """Return why a text is not a value."""
    problem = "not a value"
    try:
        _parse(text)
    except GrammarParseError as error:
        problem = str(error).splitlines()[0].partition(" expecting {")[0]
    for token, name in _TOKENS.items():
        problem = problem.replace(token, name)
    return problem
