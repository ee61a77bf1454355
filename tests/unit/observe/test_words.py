from peerloom.observe.words import count, duration, outcomes, plain


def test_durations() -> None:
    assert [duration(s) for s in (0.04, 9.9, 59.6, 725, 10800)] == [
        "0.0 s",
        "9.9 s",
        "1:00",
        "12:05",
        "3:00:00",
    ]


def test_counts_and_outcomes() -> None:
    assert count(1234.4) == "1,234"
    assert outcomes({"completed": 1200, "failed": 0, "truncated": 2}) == "completed 1,200, truncated 2"
    assert outcomes({}) == "none"


def test_foreign_text_is_neither_markup_nor_control() -> None:
    assert plain("[red]a[/red]\x1b[2Jb").plain == "[red]a[/red]\N{REPLACEMENT CHARACTER}[2Jb"
