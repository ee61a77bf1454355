"""What the simulated model reads as an answer, and as options."""

import pytest

from peerloom.services.llm.simulated import opinion

QUESTION = "Which?\nA) one\nB) two\nC) three\nD) four"


@pytest.mark.parametrize(
    ("text", "options", "found"),
    [
        ("the answer is (B).", "ABC", "B"),
        ("The answer is C. No, the answer is A", "ABC", "A"),
        ("the answer is Because", "ABC", None),
        ("the answer is unknown", ["un", "unknown"], "unknown"),
        ("the answer is (X). the answer is", "ABC", None),
        ("A", "ABC", None),
    ],
)
def test_what_counts_as_stated(text, options, found) -> None:
    assert opinion.stated(text, options) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (QUESTION, "ABCD"),
        ("Q\n(A) x\n(B) y", "AB"),
        ("Q\nA. x\nB. y", "AB"),
        ("Q\nA x\nB y", ""),
        ("A) x B) y", ""),
    ],
)
def test_what_counts_as_options(text, found) -> None:
    assert opinion.labels(["be brief", text]) == list(found)
