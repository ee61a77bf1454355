"""Trajectories, validated by the models of the package `atif`."""

from pathlib import Path
from typing import Any

import atif
import pytest
from training_rows import all_rows, commit, dialogue, read_lines, tool_dialogue

import peerloom
from peerloom.sink.export.writer import export


def trajectories(run_dir: Path, tmp_path: Path, **options: Any) -> list[dict[str, Any]]:
    export(run_dir, tmp_path / "rows", format="atif", options=options)
    found = read_lines(tmp_path / "rows")
    for each in found:
        atif.Trajectory.model_validate(each)
    return found


@pytest.mark.parametrize("version", ["1.7", "1.8"])
def test_every_trajectory_is_valid(run_dir: Path, tmp_path: Path, version: str) -> None:
    commit(run_dir, all_rows())
    found = trajectories(run_dir, tmp_path, version=version)
    assert len(found) == 6
    assert {each["schema_version"] for each in found} == {f"ATIF-v{version}"}


def test_the_steps_of_a_row(run_dir: Path, tmp_path: Path) -> None:
    commit(run_dir, [tool_dialogue(0, 0, 4)])
    (found,) = trajectories(run_dir, tmp_path)
    assert [step["source"] for step in found["steps"]] == ["system", "user", "agent", "agent"]
    assert found["steps"][2]["observation"] == {"results": [{"source_call_id": "c1", "content": "3"}]}
    assert found["steps"][2]["tool_calls"][0]["arguments"] == {"a": 2, "b": [1]}
    assert found["steps"][3]["llm_call_count"] == 1
    assert found["steps"][3]["metrics"]["prompt_tokens"] == 9
    (judge,) = found["subagent_trajectories"]
    assert judge["trajectory_id"] == "0-0-0/judge"
    assert [step["message"] for step in judge["steps"]] == ["Rate: Answer 0-0", "4"]


def test_an_assistant_message_of_no_turn_is_copied_context(run_dir: Path, tmp_path: Path) -> None:
    row = dialogue(0, 0, 4)
    example = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    commit(run_dir, [{**row, "messages": [*example, *row["messages"]]}])
    (found,) = trajectories(run_dir, tmp_path)
    assert [step.get("is_copied_context") for step in found["steps"]] == [None, True, None, None, None]


def test_a_run_makes_valid_trajectories(tmp_path: Path) -> None:
    result = peerloom.run(
        "coral", llm="simulated", engine="local", limit=3, run_dir=tmp_path / "run", progress=False
    )
    assert len(trajectories(result.run_dir, tmp_path)) == 3
