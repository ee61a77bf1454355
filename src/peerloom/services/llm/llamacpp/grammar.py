"""Write choices as a GBNF grammar, by which llama.cpp constrains sampling.

A grammar costs only the tokens of the choice itself, and a JSON schema about a dozen more.
"""

from collections.abc import Iterable

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def choice_grammar(choices: Iterable[str]) -> str:
    """Return a grammar that matches exactly `choices`, e.g. `root ::= "A" | "B"`."""
    return f"root ::= {' | '.join(map(_literal, choices))}"


def _literal(text: str) -> str:
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    return char if char.isprintable() else f"\\U{ord(char):08X}"
