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


def references(trajectory: dict[str, Any]) -> dict[int, list[str]]:
    """The ids to which each step refers."""
    found: dict[int, list[str]] = {}
    for step in trajectory["steps"]:
        for result in step.get("observation", {"results": []})["results"]:
            for reference in result.get("subagent_trajectory_ref", ()):
                found.setdefault(step["step_id"], []).append(reference["trajectory_id"])
    return found


def test_each_sub_trajectory_is_referred_to_where_its_role_first_acted(tmp_path: Path) -> None:
    result = peerloom.run(
        "coral", llm="simulated", engine="local", limit=10, run_dir=tmp_path / "run", progress=False
    )
    for found in trajectories(result.run_dir, tmp_path):
        subs = [sub["trajectory_id"] for sub in found["subagent_trajectories"]]
        assert sorted(id for ids in references(found).values() for id in ids) == sorted(subs)
        first = next(step["step_id"] for step in found["steps"] if step["source"] == "agent")
        assert f"{found['trajectory_id']}/extractor" in references(found)[first]
        assert all(step["llm_call_count"] for step in found["steps"] if "metrics" in step)


def test_a_request_that_begins_anew_is_copied_context(run_dir: Path, tmp_path: Path) -> None:
    row = dialogue(0, 0, 4)
    judge = row["turns"][1]
    asked = judge["calls"][0]["request"]["messages"]
    rules = {"role": "system", "content": "Be strict."}
    for turn, last in ((judge, "first"), (judge, "second")):
        request = {"messages": [rules, *asked, {"role": "user", "content": last}]}
        row["turns"].append({**turn, "calls": [{"request": request, "reply": {"text": last}}]})
    commit(run_dir, [{**row, "turns": [row["turns"][0], *row["turns"][2:]]}])
    (found,) = trajectories(run_dir, tmp_path)
    (sub,) = found["subagent_trajectories"]
    copied = [step["message"] for step in sub["steps"] if step.get("is_copied_context")]
    assert copied == ["Be strict.", asked[0]["content"]]


def test_images_are_parts_and_other_media_have_no_place(run_dir: Path, tmp_path: Path) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    sound = {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}
    rows = [dialogue(number, 0, 1) for number in range(2)]
    for row, part in zip(rows, (image, sound), strict=True):
        row["messages"][1] = {"role": "user", "content": [{"type": "text", "text": "See:"}, part]}
    commit(run_dir, rows)
    (found,) = trajectories(run_dir, tmp_path)
    assert found["steps"][1]["message"][1]["source"] == {
        "media_type": "image/png",
        "path": "https://example.org/a.png",
    }
