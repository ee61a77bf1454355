import pytest

from benchmarks.comparison.rows import OPEN, Reach, Row, at_least, at_most, fraction, missing, times

KEYS = ["figure", "value", "peer", "peer_value", "ratio", "reach", "holds"]


@pytest.mark.parametrize(
    ("reach", "value", "peer_value", "holds"),
    [
        (at_least(0.97), 0.97, None, True),
        (at_least(0.97), 0.96, 2.0, False),
        (at_most(0.1), 0.1, None, True),
        (at_most(0.1), 0.11, 0.1, False),
        (times(200), 400.0, 2.0, True),
        (times(200), 399.0, 2.0, False),
        (fraction(0.8), 4.0, 5.0, True),
        (fraction(0.8), 4.1, 5.0, False),
        (OPEN, 1.0, 2.0, None),
    ],
)
def test_what_is_to_be_reached_is_a_value_or_a_ratio(
    reach: Reach, value: float, peer_value: float | None, holds: bool | None
) -> None:
    assert Row("calls/s", value, "loop", peer_value, reach).holds is holds


def test_nothing_holds_that_lacks_its_figures() -> None:
    assert Row("calls/s", 400.0, "loop", None, times(200)).holds is None
    assert Row("calls/s", 400.0, "loop", 0.0, times(200)).ratio is None
    row = missing("calls/s", at_least(1), "no network namespaces here", "loop")
    assert (row.value, row.holds, row.note) == (None, None, "not measured: no network namespaces here")


def test_a_row_in_json_begins_with_the_seven_keys() -> None:
    row = Row("calls/s", 123.456789, "loop", 10.0, times(12), (120.0, 130.0), "a note")
    found = row.as_json()
    assert list(found)[:7] == KEYS
    assert found["value"] == 123.46
    assert found["ratio"] == 12.346
    assert found["holds"] is True
    assert found["spread"] == [120.0, 130.0]
    assert list(missing("calls/s", OPEN, "why").as_json()) == list(found)
