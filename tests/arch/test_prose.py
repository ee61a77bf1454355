"""Docstrings and comments are plain English, without the words on which riddles hinge."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from source_tree import PACKAGE, Module, expect_none, read_modules, write_package

HINGES = re.compile(r"\b(whatever|whoever|so (?:many|much)|anew|(?<!says )what)\b", re.IGNORECASE)


def hinges(package: Path) -> list[str]:
    """Every line of a docstring or comment with such a word."""
    return [
        f"{module.path}:{line}: {text.strip()}"
        for module in read_modules(package)
        for line, text in _prose(module)
        if HINGES.search(text)
    ]


def _prose(module: Module) -> Iterator[tuple[int, str]]:
    """The lines of all docstrings, also those below attributes, and of all comments."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            if isinstance(node.value.value, str):
                yield from enumerate(node.value.value.splitlines(), node.lineno)
    for token in tokenize.generate_tokens(io.StringIO(module.source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def test_prose_is_plain() -> None:
    expect_none([f"{line}: name the thing instead" for line in hinges(PACKAGE)])


def test_a_riddle_is_named(tmp_path: Path) -> None:
    source = '"""Do what is asked."""\nX = 1  # so many times\nY = "whoever"\n'
    assert hinges(write_package(tmp_path, {"a.py": source})) == [
        "a.py:1: Do what is asked.",
        "a.py:2: # so many times",
    ]
