"""A run whose rows fail is no success: it stops early, says why, and can be resumed."""

from pathlib import Path
from typing import Any

import pytest

import peerloom
from peerloom import FunctionAgent, Sequence, Task
from peerloom.errors import ConfigError
from peerloom.events import Hooks, Notice


def fail(task: Task) -> int:
    raise ValueError("the tool is broken")


def fail_some(task: Task) -> int:
    if task.input["n"] % 4 == 0:
        raise ValueError("divisible by four")
    return task.input["n"]


class Errors(Hooks):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def notice(self, event: Notice) -> None:
        if event.level == "error":
            self.texts.append(event.text)


def run(engine: str, run_dir: Path, agent: Any, rows: int, **options: Any) -> peerloom.RunResult:
    return peerloom.run(
        workflow=Sequence("worker"),
        agents={"worker": FunctionAgent(agent)},
        source=[{"n": number} for number in range(rows)],
        llm="simulated",
        engine=engine,
        run_dir=run_dir,
        in_flight=4,
        **options,
    )


def test_a_run_whose_first_rows_all_failed_stops_and_can_be_resumed(engine: str, tmp_path: Path) -> None:
    errors = Errors()
    stopped = run(engine, tmp_path / "run", fail, 200_000, hooks=[errors])
    failed = stopped.summary["outcomes"]["failed"]
    assert stopped.how == "failed"
    assert stopped.summary["outcomes"] == {"failed": failed} and 20 <= failed < 200_000
    rows = list(stopped.rows(rejected=True))
    assert len({row["id"] for row in rows}) == len(rows) == failed
    (text,) = errors.texts
    assert "the tool is broken" in text and "agent_error" in text and "--retry-failed" in text
    assert stopped.summary["error"] in text


def test_a_stopped_run_goes_on_when_the_cause_is_mended(engine: str, tmp_path: Path) -> None:
    for session in (1, 2):  # the second one counts its own rows only, so it stops again
        stopped = run(engine, tmp_path / "run", fail_some, 2000, max_failed=0)
        assert (stopped.how, stopped.summary["sessions"]) == ("failed", session)
        assert 1 <= stopped.summary["outcomes"]["failed"]
    done = run(engine, tmp_path / "run", fail_some, 2000, max_failed=1.0)
    assert done.how == "finished"
    assert done.summary["outcomes"] == {"completed": 1500, "failed": 500}
    assert "error" not in done.summary


@pytest.mark.parametrize("engine", ["local"], indirect=True)  # the driver decides
@pytest.mark.parametrize(
    ("max_failed", "how"),
    [(None, "finished"), (9, "failed"), (10, "finished"), (0.2, "failed"), (0.25, "finished"), (0, "failed")],
)
def test_a_limit_is_a_number_or_a_share(engine: str, max_failed: Any, how: str, tmp_path: Path) -> None:
    result = run(engine, tmp_path / "run", fail_some, 40, max_failed=max_failed)
    assert result.how == how
    assert ("error" in result.summary) == (how == "failed")


@pytest.mark.parametrize("engine", ["local"], indirect=True)
@pytest.mark.parametrize("rows", [1, 3])
def test_a_few_rows_that_all_fail_are_a_failed_run(engine: str, rows: int, tmp_path: Path) -> None:
    result = run(engine, tmp_path / "run", fail, rows)
    assert (result.how, result.summary["outcomes"]) == ("failed", {"failed": rows})
    once_more = run(engine, tmp_path / "run", fail, rows)
    assert (once_more.how, once_more.summary["sessions"]) == ("failed", 1)
    again = {"retry_failed": True, "accept_program": True}
    mended = run(engine, tmp_path / "run", lambda task: task.input["n"], rows, **again)
    assert (mended.how, mended.summary["outcomes"]) == ("finished", {"completed": rows})


@pytest.mark.parametrize("engine", ["local"], indirect=True)
def test_malformed_rows_do_not_stop_a_run_by_default(engine: str, tmp_path: Path) -> None:
    def check(row: Any) -> None:
        if row["n"] < 100:
            raise ValueError("too small")

    result = run(engine, tmp_path / "a", lambda task: task.input["n"], 101, check_row=check)
    assert (result.how, result.summary["outcomes"]) == ("finished", {"failed": 100, "completed": 1})
    all_bad = run(engine, tmp_path / "b", lambda task: task.input["n"], 100, check_row=check)
    assert (all_bad.how, all_bad.summary["reasons"]) == ("failed", {"bad_row": 100})
    assert "too small" in all_bad.summary["error"]


@pytest.mark.parametrize("value", [-1, 1.5, 0.0, True, "many"])
def test_an_impossible_limit_never_starts_a_run(value: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_failed"):
        run("local", tmp_path / "run", fail, 3, max_failed=value)
