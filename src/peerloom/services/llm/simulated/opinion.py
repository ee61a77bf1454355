"""Choose the answers of the simulated model, so that its dialogues can reach agreement.

Answers are stated and recognized in a single form, `The answer is (C).`. If a prompt lists lettered options
at the start of lines, a reply begins with such a statement; if a request has choices, the reply is one of
them. With probability `agreement` the answer is the option stated last in the dialogue (without the system
message, where it is an example), and otherwise any option with equal probability.
"""

import re
from collections.abc import Sequence

_STATEMENT = "answer is "
_BEFORE = "(*\"'`"
_LABEL = re.compile(r"^\(?([A-Z])[).:][ \t]", re.MULTILINE)


def statement(option: str) -> str:
    """Return the sentence that states `option`."""
    return f"The {_STATEMENT}({option})."


def stated(text: str, options: Sequence[str]) -> str | None:
    """Return the option that `text` states last, or None."""
    end = len(text)
    longest = max(map(len, options), default=0)
    while (at := text.rfind(_STATEMENT, 0, end)) >= 0:
        begin = at + len(_STATEMENT)
        words = text[begin : begin + len(_BEFORE) + longest + 1].lstrip(_BEFORE)
        found = [o for o in options if words.startswith(o) and not words[len(o) : len(o) + 1].isalnum()]
        if found:
            return max(found, key=len)
        end = at
    return None


def labels(texts: Sequence[str]) -> list[str]:
    """Return the letters of the options listed on lines of their own, as `A) ...`, `(A) ...` or `A. ...`."""
    found: set[str] = set()
    for text in texts:
        if "\n" in text and ("\nB" in text or "\n(B" in text):  # a fast check that rules out most texts
            found.update(_LABEL.findall(text))
    return sorted(found) if {"A", "B"} <= found else []


def choose(
    options: Sequence[str], dialogue: Sequence[str], agreement: float, chances: tuple[float, float]
) -> str:
    """Return one of `options`, given the texts of the dialogue, oldest first.

    `chances`, both in [0, 1), determine whether to agree, and the option otherwise.
    """
    if chances[0] < agreement:
        for text in reversed(dialogue):
            last = stated(text, options)
            if last is not None:
                return last
    return options[int(chances[1] * len(options))]
