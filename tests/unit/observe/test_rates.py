from peerloom.events import AgentTotals, Progress
from peerloom.observe.rates import ProgressRates


def snapshot(seconds: float, rows: int, tokens: int = 0, total: int | None = 100) -> Progress:
    agents = {"a": AgentTotals(calls=rows, completion_tokens=tokens)}
    return Progress(seconds, total, rows, 0, {"completed": rows}, agents=agents)


def test_nothing_is_known_before_the_first_snapshot() -> None:
    rates = ProgressRates()
    assert (rates.rows, rates.per_second.tokens, rates.seconds_left) == (0, 0.0, None)


def test_speeds_and_the_time_left() -> None:
    rates = ProgressRates()
    rates.add(snapshot(0, 0))
    rates.add(snapshot(10, 20, 500))
    assert (rates.per_second.tokens, rates.per_second.calls) == (50.0, 2.0)
    assert rates.seconds_left == 40.0


def test_only_the_last_half_minute_counts() -> None:
    rates = ProgressRates()
    rates.add(snapshot(0, 0))
    for second in range(1, 101):
        rates.add(snapshot(second, 0 if second <= 60 else second - 60))
    assert rates.per_second.calls == 1.0
    assert rates.seconds_left == 60.0


def test_no_time_left_is_claimed_without_a_total_or_a_row() -> None:
    rates = ProgressRates()
    rates.add(snapshot(5, 0))
    assert rates.seconds_left is None
    rates.add(snapshot(6, 1, total=None))
    assert rates.seconds_left is None


def test_figures_that_shrink_when_a_process_is_lost_are_no_negative_speed() -> None:
    rates = ProgressRates()
    rates.add(snapshot(1, 0, 500))
    for second in range(40, 50):
        rates.add(snapshot(second, 0, 100))
    assert rates.per_second.tokens == 0.0


def test_what_earlier_sessions_did_is_there_but_is_no_speed() -> None:
    rates = ProgressRates()
    for seconds, rows, known in ((100, 0, 0), (110, 70, 50), (120, 90, 50)):
        rates.add(
            Progress(seconds, 190, rows, 0, {"completed": rows}, earlier_rows=known, earlier_seconds=100)
        )
    assert rates.rows == 90
    assert rates.seconds_left == 50.0  # 40 rows in 20 seconds


def test_the_start_is_no_part_of_the_speed() -> None:
    rates = ProgressRates()
    for second in range(20):  # the engine and the model start
        rates.add(snapshot(second, 0))
    rates.add(snapshot(24, 10))
    assert (rates.per_second.calls, rates.seconds_left) == (2.0, 45.0)  # 10 rows since second 19
    late = ProgressRates()
    late.add(snapshot(20, 10))  # the first that is known of it
    assert late.seconds_left is None
    late.add(snapshot(22, 20))
    assert late.seconds_left == 16.0
