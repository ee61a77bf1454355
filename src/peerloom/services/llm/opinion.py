"""What the simulated model holds to be the answer, so that its dialogues have something to agree about.

It states answers in one form, `The answer is (C).`, and reads only that form back. Where a prompt lists
lettered options at the start of lines, free text ends with a stated option; where one of several
strings is asked for, one is given. Either is, with the probability `agreement`, the option stated most
recently in the prompt, and else any of them with equal chance.
"""

import re
from collections.abc import Sequence

_STATEMENT = "answer is "
_BEFORE = "(*\"'`"
_LABEL = re.compile(r"^\(?([A-Z])[).:][ \t]", re.MULTILINE)


def statement(option: str) -> str:
    """The sentence that states `option`."""
    return f"The {_STATEMENT}({option})."


def stated(prompt: str, options: Sequence[str]) -> str | None:
    """The option that `prompt` states last, or None."""
    end = len(prompt)
    longest = max(map(len, options), default=0)
    while (at := prompt.rfind(_STATEMENT, 0, end)) >= 0:
        begin = at + len(_STATEMENT)
        words = prompt[begin : begin + len(_BEFORE) + longest + 1].lstrip(_BEFORE)
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


def choose(options: Sequence[str], prompt: str, agreement: float, chances: tuple[float, float]) -> str:
    """One of `options`; `chances`, both in [0, 1), decide whether to agree and what to say if not."""
    last = stated(prompt, options) if chances[0] < agreement else None
    return options[int(chances[1] * len(options))] if last is None else last
