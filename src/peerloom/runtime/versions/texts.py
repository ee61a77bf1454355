"""Lay out the description of a program, one value a line, so that a difference shows where it is."""

import hashlib

MAX_LINES = 2_000


def below(text: str) -> str:
    """Return a text as the value of a field: behind its name, or indented below it."""
    if text.startswith("|") or "\n" not in text:
        return f" {text}"
    space = "" if text.startswith("\n") else " "
    return space + text.replace("\n", "\n  ")


def listed(texts: list[str], mark: str = "-") -> str:
    """Return texts as the items of a list."""
    return "".join(f"\n{mark}{below(text)}" for text in texts) if texts else "[]"


def shortened(text: str) -> str:
    """Return the first lines of a long text, with a digest of the whole."""
    if text.count("\n") <= MAX_LINES:
        return text
    lines = text.split("\n")
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return "\n".join([*lines[:MAX_LINES], f"... and {len(lines) - MAX_LINES} more lines: {digest}"])
