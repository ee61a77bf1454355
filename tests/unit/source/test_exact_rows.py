"""Rows that a parser would change are bad rows, and cost only themselves."""

from pathlib import Path

import pytest

from peerloom.source.open import open_source

GOOD = '{"id": 7, "q": "0.12345678901234567890", "n": 18446744073709551615, "pi": 3.14159265358979323846}'


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"id": 340282366920938463463374607431768211455}', "row.id: an integer of more than 64 bits"),
        ('{"q": [{"n": -9223372036854775809}]}', "row.q[0].n: an integer of more than 64 bits"),
        ('{"n": ' + "7" * 300 + "}", "row.n: an integer of more than 64 bits"),
        ('{"n": ' + "7" * 5000 + "}", "not JSON: number is infinity"),
        ('{"n": 1e400}', "not JSON: number is infinity"),
        ('{"d": ' + "[" * 200 + "]" * 200 + "}", "nested more than 100 levels deep"),
        ('{"d": ' + "[" * 5000 + "]" * 5000 + "}", "not JSON"),
        ('{"d": ' + '{"a":' * 5000, "not JSON"),
        (r'{"q": "\ud83d"}', "not JSON"),
    ],
)
def test_a_row_that_would_be_changed_is_a_bad_row(line: str, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text(f"{line}\n{GOOD}\n")
    bad, good = open_source(file).rows(0, 1)
    assert bad.data is None
    assert "in.jsonl:1" in bad.error and problem in bad.error
    assert good.data is not None and good.data["n"] == 2**64 - 1
