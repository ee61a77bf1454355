"""The errors of a run: the most common ones are shown at its end, and the log has their tracebacks."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import peerloom
from peerloom import FunctionAgent, Sequence, Task
from peerloom.errors import AnswerError, ContentFiltered
from peerloom.observe import print_summary
from peerloom.runtime.steps.error_counts import ErrorCounts, SessionErrors
from peerloom.task import Header, TaskId, new_task


class Odd(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def fail_in_five_ways(task: Task) -> Any:
    number = task.input["n"]
    if number < 1:
        raise Odd
    if number < 3:
        raise KeyError("\ud83d[red]\x1b[31m")
    if number < 6:
        raise AnswerError(f"no answer {number}")
    if number < 10:
        raise ValueError("the tool is broken\x1b[31m")
    if number < 15:
        raise ContentFiltered("not an error: the row's outcome is filtered")
    return number


def run(agent: Any, rows: int, run_dir: Path, **options: Any) -> peerloom.RunResult:
    options.setdefault("workflow", Sequence("worker"))
    source = [{"n": number} for number in range(rows)]
    agents = {"worker": FunctionAgent(agent)}
    options |= {"llm": "simulated", "engine": "local", "run_dir": run_dir, "max_failed": 1.0}
    return peerloom.run(agents=agents, source=source, **options)


def logged(run_dir: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == "task_error"]


def test_the_three_most_common_errors_are_in_the_result_and_the_summary(tmp_path: Path) -> None:
    result = run(fail_in_five_ways, 20, tmp_path / "run")
    told = [(each["role"], each["reason"], each["type"], each["count"]) for each in result.errors]
    assert told == [
        ("worker", "agent_error", "ValueError", 4),
        ("worker", "answer", "AnswerError", 3),
        ("worker", "agent_error", "KeyError", 2),
    ]
    value, answer, _ = result.errors
    assert Path(value["file"]).name == Path(__file__).name
    source = Path(__file__).read_text().splitlines()
    assert "raise ValueError" in source[value["line"] - 1]
    assert "raise AnswerError" in source[answer["line"] - 1]
    rows = {row["id"]: row for row in result.rows(rejected=True)}
    assert "the tool is broken" in rows[value["example"]]["detail"]
    assert rows[answer["example"]]["detail"] == answer["message"]
    assert json.loads((tmp_path / "run/summary.json").read_text())["errors"] == result.errors


def test_the_end_of_a_run_shows_them_without_escape_sequences(tmp_path: Path) -> None:
    result = run(fail_in_five_ways, 20, tmp_path / "run")
    out = StringIO()
    print_summary(Console(file=out, width=200), result.summary, result.run_dir)
    lines = out.getvalue().splitlines()
    (shown,) = (line for line in lines if "ValueError" in line)
    assert "4 x worker: ValueError: the tool is broken" in shown and "test_errors.py:" in shown
    assert f"e.g. row {result.errors[0]['example']}" in shown
    assert any("3 x worker: AnswerError: no answer" in line for line in lines)
    assert "\x1b" not in out.getvalue()


def test_the_log_has_each_traceback_once_with_its_count(tmp_path: Path) -> None:
    run(fail_in_five_ways, 20, tmp_path / "run")
    entries = {entry["type"]: entry for entry in logged(tmp_path / "run")}
    assert {kind: entry["count"] for kind, entry in entries.items()} == {
        "ValueError": 4,
        "AnswerError": 3,
        "KeyError": 2,
        "Odd": 1,
    }
    assert len(logged(tmp_path / "run")) == 4
    assert "in fail_in_five_ways\n" in entries["ValueError"]["traceback"]
    assert "\\ud83d" in entries["KeyError"]["traceback"]
    assert "in fail_in_five_ways\n" in entries["AnswerError"]["traceback"]


def test_the_log_is_bounded(tmp_path: Path) -> None:
    def fail(task: Task) -> Any:
        raise type(f"Error{task.input['n']}", (Exception,), {})("x" * 100_000)

    result = run(fail, 150, tmp_path / "run")
    assert result.summary["outcomes"] == {"failed": 150}
    entries = logged(tmp_path / "run")
    assert len(entries) == 100
    assert all(1000 < len(entry["traceback"]) <= 4_000 for entry in entries)
    assert all(len(entry["message"]) <= 300 for entry in entries)


def count(counts: ErrorCounts, error: Exception) -> None:
    task = new_task(Header(TaskId(0, 0, 0)), {}, seed=0)
    counts.classify(error, "agent_error", task, "worker")


def test_a_member_counts_a_hundred_errors_and_sends_no_traceback_twice() -> None:
    counts = ErrorCounts()
    for number in range(150):
        count(counts, type(f"Error{number}", (Exception,), {})("x"))
    assert len(counts.read()) == 100
    count(counts, type("Error7", (Exception,), {})("x"))
    (again,) = counts.read()
    assert (again.type, again.count, again.traceback) == ("Error7", 2, "")
    assert counts.read() == []


def test_the_errors_of_all_members_add_up_and_keep_their_traceback() -> None:
    session, lines = SessionErrors(), list[dict[str, Any]]()
    for name in ("peer.1", "peer.2"):
        counts = ErrorCounts()
        for _ in range(2):
            count(counts, ValueError("broken"))
            session.update(name, counts.read())
    (error,) = session.report(lambda level, event, **fields: lines.append(fields))
    (line,) = lines
    assert error["count"] == line["count"] == 4
    assert line["traceback"] == "ValueError: broken\n"


@pytest.mark.parametrize("after", [0, 1])
def test_errors_of_a_workflow_are_counted_wherever_it_is_asked(after: int, tmp_path: Path) -> None:
    class Broken(Sequence):
        def next(self, task: Task) -> Any:
            if len(task.turns) == after:
                raise LookupError("no way on")
            return super().next(task)

    result = run(lambda task: 1, 5, tmp_path / "run", workflow=Broken("worker"))
    (error,) = result.errors
    assert (error["role"], error["reason"], error["type"], error["count"]) == (
        "",
        "workflow_error",
        "LookupError",
        5,
    )
    (entry,) = logged(tmp_path / "run")
    assert "no way on" in entry["traceback"] and entry["count"] == 5


def test_a_run_without_errors_shows_none(tmp_path: Path) -> None:
    result = run(lambda task: 1, 3, tmp_path / "run")
    assert result.errors == [] and logged(tmp_path / "run") == []
