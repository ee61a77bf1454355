"""Choices as GBNF. That llama.cpp reads it the same way is tested with the server itself."""

import pytest

from peerloom.services.llm.llamacpp.service import choice_grammar


def test_choices_are_alternatives() -> None:
    assert choice_grammar(["A", "B", "not sure"]) == 'root ::= "A" | "B" | "not sure"'


@pytest.mark.parametrize(
    ("choice", "literal"),
    [
        ('say "yes"', r'"say \"yes\""'),
        ("a\\b", r'"a\\b"'),
        ("two\nlines\r\t", r'"two\nlines\r\t"'),
        ("naïve 真 🙂", '"naïve 真 🙂"'),
        ("nul\x00, line\u2028", r'"nul\U00000000, line\U00002028"'),
        ("[x] | ::=", '"[x] | ::="'),
    ],
)
def test_escapes(choice: str, literal: str) -> None:
    assert choice_grammar([choice]) == f"root ::= {literal}"
