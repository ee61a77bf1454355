from io import StringIO
from pathlib import Path

from rich.console import Console

from peerloom.observe import print_summary

SUMMARY = {
    "admitted": 1200,
    "outcomes": {"completed": 1198, "failed": 2},
    "reasons": {"": 1198, "[red]answer": 2},
    "tokens": {"prompt": 5000, "completion": 3000, "cached": 1000},
    "tokens_per_second": 250.0,
    "llm_calls": 4800,
    "wall_seconds": 12.0,
    "cpu_seconds": 3.5,
    "agents": {
        "teacher": {"turns": 4, "calls": 4, "prompt": 9, "completion": 8, "cached": 7, "seconds": 2.0}
    },
}


def test_the_summary_tells_figures_and_paths() -> None:
    out = StringIO()
    directory = Path("runs") / ("x" * 100)
    print_summary(Console(file=out, width=80), SUMMARY, directory)
    text = out.getvalue()
    for part in (
        "1,200",
        "completed 1,198, failed 2",
        "[red]answer 2",
        "5,000 prompt (1,000 cached)",
        "0.50",
    ):
        assert part in text
    assert f"1,198 rows in {directory}/data/part-*.jsonl\n" in text
    assert f"2 rows in {directory}/rejected/part-*.jsonl\n" in text


def test_money_and_prefix_cache_are_told_by_agent() -> None:
    out = StringIO()
    agents = {"teacher": {**SUMMARY["agents"]["teacher"], "usd": 1.5, "cache_hit_rate": 0.7778}}
    summary = {**SUMMARY, "agents": agents, "usd": 1.5, "usd_per_completed_row": 0.001252}
    print_summary(Console(file=out, width=120), summary, Path("runs"))
    text = out.getvalue()
    assert "1.5000 USD, 0.001252 for each completed row" in text
    (teacher,) = (line.split() for line in text.splitlines() if "teacher" in line)
    assert teacher == ["teacher", "4", "4", "9", "8", "7", "78%", "0.50", "1.5000"]
