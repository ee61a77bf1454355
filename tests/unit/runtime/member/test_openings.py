"""The messages before the first turn come from the user's function: what it does is a recorded outcome."""

from math import nan
from pathlib import Path
from typing import Any

import pytest

import peerloom
from peerloom import FunctionAgent, Sequence
from peerloom.task import End, Task, Turn


def rows_with(opening: Any, run_dir: Path, *, end: End | None = None) -> list[dict[str, Any]]:
    done = peerloom.run(
        workflow=Sequence("a", opening=opening),
        agents={"a": FunctionAgent(lambda task: Turn("", value=task.input["n"], end=end))},
        source=[{"n": 1}],
        llm="simulated",
        engine="local",
        run_dir=run_dir,
        progress=False,
    )
    return list(done.rows(rejected=True))


def missing(task: Task) -> Any:
    return task.input["missing"]


@pytest.mark.parametrize(
    ("opening", "told"),
    [
        (missing, "KeyError: 'missing' (test_openings.py:"),
        (lambda task: 1 / 0, "ZeroDivisionError: division by zero (test_openings.py:"),
        (lambda task: None, "TypeError: opening() returned a NoneType; it must return a list of messages"),
        (lambda task: ["hello"], "TypeError: opening()[0]: a str; it must be a dict"),
        (lambda task: [{"content": {1, 2}}], "ValueError: opening()[0].content: of type set, not JSON"),
        (lambda task: [{"content": [nan]}], "ValueError: opening()[0].content[0]: nan is not JSON"),
        (
            lambda task: [{"content": "\udce9"}],
            "ValueError: opening()[0].content: '\\udce9' holds",
        ),
    ],
)
def test_an_opening_that_fails_is_the_rows_outcome(opening: Any, told: str, tmp_path: Path) -> None:
    (row,) = rows_with(opening, tmp_path / "run")
    assert (row["outcome"], row["reason"]) == ("failed", "workflow_error")
    assert told in row["detail"]
    assert row["turns"][0]["value"] == 1
    assert row["error"]["type"] in told


def test_a_row_that_was_filtered_keeps_its_reason(tmp_path: Path) -> None:
    (row,) = rows_with(missing, tmp_path / "run", end=End("filtered", "short"))
    assert (row["outcome"], row["reason"], row["messages"]) == ("filtered", "short", [])
