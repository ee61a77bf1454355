"""What the simulated model holds to be the answer, so that its dialogues have something to agree about.

It states answers in one form, `The answer is (C).`, and reads only that form back. Where a prompt lists
lettered options at the start of lines, free text begins with a stated option; where one of several
strings is asked for, one is given. Either is, with the probability `agreement`, the option that was
stated last (by anyone but the system message, where it is an example), and else any with equal chance.
"""

import re
from collections.abc import Sequence

_STATEMENT = "answer is "
_BEFORE = "(*\"'`"
_LABEL = re.compile(r"^\(?([A-Z])[).:][ \t]", re.MULTILINE)


def statement(option: str) -> str:
    """The sentence that states `option`."""
    return f"The {_STATEMENT}({option})."


def stated(text: str, options: Sequence[str]) -> str | None:
    """The option that `text` states last, or None."""
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
    """The letters of the options that the texts list one a line, as `A) ...`, `(A) ...` or `A. ...`."""
    found: set[str] = set()
    for text in texts:
        if "\n" in text and ("\nB" in text or "\n(B" in text):  # quickly told of most that they do not
            found.update(_LABEL.findall(text))
    return sorted(found) if {"A", "B"} <= found else []


def choose(
    options: Sequence[str], said: Sequence[str], agreement: float, chances: tuple[float, float]
) -> str:
    """One of `options`, after the messages `said`, oldest first.

    `chances`, both in [0, 1), decide whether to agree, and what to say if not.
    """
    if chances[0] < agreement:
        for text in reversed(said):
            last = stated(text, options)
            if last is not None:
                return last
    return options[int(chances[1] * len(options))]
