"""Make text safe to print on a terminal."""

from unicodedata import category

_ALLOWED = "\n\t\u200c\u200d"  # the last two join letters in several scripts, and emoji
_INVISIBLE = ("Cc", "Cf")  # control and format characters, such as U+200B
_SPACES = "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"


def printable(text: str) -> str:
    """Replace control characters, escape sequences included, and invisible ones; keep newlines and tabs."""
    if text.isprintable():
        return text
    return "".join(map(_replaced, text))


def _replaced(char: str) -> str:
    if char.isprintable() or char in _ALLOWED:
        return char
    return " " if char in _SPACES else "\N{REPLACEMENT CHARACTER}"


def is_blank(text: str) -> bool:
    """Return whether a text has no visible character, only spaces, control and zero-width characters."""
    return all(char.isspace() or category(char) in _INVISIBLE for char in text)
