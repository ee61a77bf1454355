"""Texts that are to be compressed as real ones are: words of a text, drawn anew for each.

Texts that were cut out of one would be found again in each other. In blocks of 20 KB, in one stream, at level
3 of zstd, what is drawn in pairs of words from recorded replies of a model becomes 3.2 times smaller, and so
do the replies themselves but for those that go round in circles; with those it is 6.9 times. Single words of
our own prose: 3.5 times.
"""

import os
from functools import cache
from pathlib import Path
from random import Random

import orjson

from peerloom.services.llm.simulated.prose import prose

VARIABLE = "PEERLOOM_BENCH_TEXTS"
"""Names a file of real texts: plain text, or JSON lines, of which the longest field counts."""
PROSE = 64 * 1024


def given() -> str:
    """Return the file that the environment names; empty if it names none."""
    path = os.environ.get(VARIABLE, "")
    return os.path.abspath(path) if path else ""


def text(size: int, state: int, path: str = "") -> str:
    """Return a text of so many characters, the same for the same state.

    Args:
        size: characters.
        state: another text for each.
        path: of the file whose words are drawn; by default they are our own.
    """
    pieces, length = _pieces(path)
    found = " ".join(Random(state).choices(pieces, k=size // length + 8))
    while len(found) < size:
        found += " " + text(size - len(found), state + 1, path)
    return found[:size]


@cache
def _pieces(path: str) -> tuple[list[str], int]:
    """Return the pieces that texts are put together of, and their average length."""
    many = 2 if path else 1
    words = (_read(Path(path)) if path else prose(PROSE, 1)).split()
    pieces = [" ".join(words[at : at + many]) for at in range(len(words) - many + 1)]
    return pieces, sum(map(len, pieces)) // len(pieces) + 1


def _read(path: Path) -> str:
    if path.suffix != ".jsonl":
        return path.read_text(errors="replace")
    rows = map(orjson.loads, path.read_bytes().splitlines())
    return "\n".join(
        max((value for value in row.values() if isinstance(value, str)), key=len, default="") for row in rows
    )
