from functools import partial

from benchmarks.comparison.case import Case, Figures, Found, Outcome, Side, measure
from benchmarks.comparison.rows import OPEN, Row, at_least, times
from benchmarks.comparison.sides import compared
from benchmarks.harness.points import BenchError


class Machine:
    """Measures nothing, in the order it was asked to."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def measure(self, name: str) -> Figures:
        self.asked.append(name)
        if name == "broken":
            raise BenchError("it\n  fell   over")
        return {"rate": float(len(self.asked))}


def rows(outcome: Outcome) -> list[Row]:
    return [compared("rate", outcome, "rate", peer="other", reach=OPEN)]


def case(machine: Machine, *names: str, runs: int = 1) -> Case:
    return Case("rates", [Side(name, partial(machine.measure, name)) for name in names], rows, runs)


def test_sides_take_turns_and_their_medians_count() -> None:
    machine, told = Machine(), list[str]()
    outcome = measure(case(machine, "peerloom", "other", runs=3), told.append)
    assert machine.asked == ["peerloom", "other"] * 3
    assert outcome["peerloom"].get("rate") == 3.0
    assert outcome["peerloom"].spread("rate") == (1.0, 5.0)
    assert told[0] == "rates: peerloom, run 1 of 3"


def test_a_side_that_takes_long_is_measured_once() -> None:
    machine = Machine()
    slow = Side("slow", partial(machine.measure, "slow"), once=True)
    whole = Case("rates", [Side("peerloom", partial(machine.measure, "peerloom")), slow], rows, runs=3)
    outcome = measure(whole, lambda text: None)
    assert machine.asked == ["peerloom", "slow", "peerloom", "peerloom"]
    assert outcome["slow"].get("rate") == 2.0


def test_a_side_that_fails_is_not_tried_again_and_the_others_go_on() -> None:
    machine = Machine()
    outcome = measure(case(machine, "broken", "other", runs=2), lambda text: None)
    assert machine.asked == ["broken", "other", "other"]
    assert outcome["broken"].reason == "it fell over"
    assert outcome["broken"].get("rate") is None
    assert outcome["other"].get("rate") == 2.5


def test_a_side_that_cannot_is_listed_with_its_reason() -> None:
    machine = Machine()
    whole = Case(
        "rates",
        [Side("peerloom", partial(machine.measure, "peerloom")), Side("other", None, "no loops")],
        rows,
    )
    (row,) = whole.rows(measure(whole, lambda text: None))
    assert (row.value, row.peer_value, row.note) == (1.0, None, "other not measured: no loops")


def test_a_row_of_what_was_not_measured_says_why() -> None:
    outcome = {"peerloom": Found(reason="out of memory"), "other": Found([{"rate": 1.0}])}
    row = compared("rate", outcome, "rate", peer="other", reach=times(2))
    assert (row.value, row.holds, row.note) == (None, None, "not measured: out of memory")


def test_a_note_is_made_of_the_medians() -> None:
    outcome = {"peerloom": Found([{"rate": 1.0}, {"rate": 3.0}])}
    row = compared("rate", outcome, "rate", reach=at_least(2), note=lambda found: f"{found['rate']:g} it is")
    assert (row.value, row.holds, row.note) == (2.0, True, "2 it is")


def test_a_row_says_that_its_peer_was_stopped() -> None:
    outcome = {"peerloom": Found([{"rate": 3.0}]), "other": Found([{"rate": 1.0, "stopped_after": 60.4}])}
    row = compared("rate", outcome, "rate", peer="other", reach=OPEN)
    assert (row.ratio, row.note) == (3.0, "other stopped after 60 s")
