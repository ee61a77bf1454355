"""Text that a terminal only shows."""


def printable(text: str) -> str:
    """Replace control characters, escape sequences included, and invisible ones; keep newlines and tabs."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text
    )
