"""Runs over every kind of input, and finished runs as the input of others."""

import json
from pathlib import Path
from typing import Any

import pytest
from kinds import jsonl, parquet

import peerloom
from peerloom import FunctionAgent, LLMAgent, RunDirError, Sequence, SourceError, Task
from peerloom.source.open import open_source

ROWS = [{"id": f"q{n}", "question": f"what is {n}?"} for n in range(12)]


def parrot(request: peerloom.ChatRequest) -> str:
    return "echo: " + request.messages[-1]["content"]


def run(tmp_path: Path, name: str, source: Any, prompt: str, **options: Any) -> peerloom.RunResult:
    return peerloom.run(
        workflow=Sequence("answerer"), agents={"answerer": LLMAgent(prompt)}, source=source, llm=parrot,
        engine="local", run_dir=tmp_path / name, **options,
    )  # fmt: skip


def said(result: peerloom.RunResult) -> list[str]:
    return sorted(row["messages"][-1]["content"] for row in result)


def test_a_run_over_parquet_by_several_feeders(tmp_path: Path) -> None:
    parquet(tmp_path / "q.parquet", ROWS)
    result = run(
        tmp_path, "run", str(tmp_path / "q.parquet"), "{{ input.question }}",
        config={"partitions": 3, "source.key": "id"},
    )  # fmt: skip
    assert said(result) == sorted(f"echo: what is {n}?" for n in range(12))
    assert {row["id"]: row["provenance"]["label"] for row in result} == {
        f"0-{n}-0": f"q{n}" for n in range(12)
    }


def test_a_run_over_parquet_is_gone_on_with(tmp_path: Path) -> None:
    parquet(tmp_path / "q.parquet", ROWS)
    source = str(tmp_path / "q.parquet")
    assert len(run(tmp_path, "run", source, "{{ input.question }}", limit=5)) == 5
    result = run(tmp_path, "run", source, "{{ input.question }}", limit=9)
    assert sorted(row["id"] for row in result) == [f"0-{n}-0" for n in range(9)]
    assert result.summary["sessions"] == 2
    parquet(tmp_path / "q.parquet", ROWS[::-1])
    with pytest.raises(RunDirError, match=r"source\.files\[0\]\.digest"):
        run(tmp_path, "run", source, "{{ input.question }}", limit=9)


def test_a_run_over_a_folder_records_bad_documents(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text("alpha")
    (folder / "b.md").write_bytes(b"caf\xe9")
    (folder / "c.html").write_text("<html><body><p>A page with some gamma.</p></body></html>")
    result = run(tmp_path, "run", folder, "{{ input.path }}: {{ input.text }}")
    assert said(result) == ["echo: a.txt: alpha", "echo: c.html: A page with some gamma."]
    (bad,) = (row for row in result.rows(rejected=True) if row["outcome"] != "completed")
    assert (bad["id"], bad["outcome"], bad["reason"]) == ("0-1-0", "failed", "bad_row")
    assert f"{folder}/b.md: not UTF-8" in bad["detail"]


def twice(task: Task) -> dict[str, Any]:
    return {"question": task.input["question"] * 2, "words": 3}


def first_run(tmp_path: Path, agent: Any, **options: Any) -> Path:
    (tmp_path / "q.jsonl").write_bytes(jsonl(ROWS))
    given = {"source": str(tmp_path / "q.jsonl"), "config": {"source.key": "id"}} | options
    peerloom.run(
        workflow=Sequence("maker"), agents={"maker": FunctionAgent(agent)}, llm=["unused"], engine="local",
        run_dir=tmp_path / "first", **given,
    )  # fmt: skip
    return tmp_path / "first"


def test_what_a_run_found_is_laid_over_what_it_was_given(tmp_path: Path) -> None:
    folder = first_run(tmp_path, twice)
    source = open_source(folder)
    rows = {row.label: row.data for row in source.rows(0, 1)}
    assert rows == {row["id"]: {**row, "question": row["question"] * 2, "words": 3} for row in ROWS}
    assert [row.label for row in open_source(folder, key="words").rows(0, 1)] == [3] * 12
    assert source.describe()["kind"] == "run"


def test_a_result_that_is_no_object_is_a_field(tmp_path: Path) -> None:
    folder = first_run(tmp_path, lambda task: len(task.input["question"]))
    assert next(open_source(folder).rows(0, 1)).data.keys() == {"id", "question", "result"}


def test_a_field_of_a_runs_rows(tmp_path: Path) -> None:
    folder = first_run(tmp_path, twice)
    assert next(open_source(folder, field="result").rows(0, 1)).data.keys() == {"question", "words"}
    text = next(open_source(folder, field="result.question").rows(0, 1))
    assert text.data["text"].startswith("what is")
    assert text.label in {row["id"] for row in ROWS}


def test_a_row_names_the_row_that_it_was_made_from(tmp_path: Path) -> None:
    first = first_run(tmp_path, twice, limit=3)
    second = run(tmp_path, "second", first, "{{ input.question }}").run_dir
    run(tmp_path, "third", second, "{{ input.question }}")
    rows = {
        f"{name}/{row['id']}": row
        for name in ("first", "second", "third")
        for row in peerloom.read_rows(tmp_path / name)
    }
    for name, row in rows.items():
        parents = row["provenance"].get("parents", [])
        assert [parent.split("/")[0] for parent in parents] == {"second": ["first"], "third": ["second"]}.get(
            name.split("/")[0], []
        )
        assert all(rows[parent]["input"]["id"] == row["input"]["id"] for parent in parents)


def test_one_run_after_another_leaves_out_what_failed(tmp_path: Path) -> None:
    def picky(task: Task) -> dict[str, Any]:
        if task.input["id"] == "q3":
            raise ValueError("no threes")
        return {"length": len(task.input["question"])}

    folder = first_run(tmp_path, picky)
    result = run(tmp_path, "second", folder, "{{ input.question }} {{ input.length }}")
    assert said(result) == sorted(f"echo: what is {n}? {len(f'what is {n}?')}" for n in range(12) if n != 3)
    assert {row["provenance"]["label"] for row in result} == {row["id"] for row in ROWS} - {"q3"}


def test_a_run_that_has_not_finished_is_refused(tmp_path: Path) -> None:
    folder = first_run(tmp_path, twice)
    state = json.loads((folder / ".peerloom/state.json").read_text())
    (folder / ".peerloom/state.json").write_text(json.dumps(state | {"how": "drained"}))
    with pytest.raises(
        SourceError, match=r"has not finished \(its state is drained\).*peerloom resume .*first"
    ):
        open_source(folder)
    assert len(list(open_source(f"{folder}/data/*.jsonl").rows(0, 1))) == 12
    (folder / ".peerloom/state.json").write_text("{")
    with pytest.raises(SourceError, match=r"state\.json cannot be read"):
        open_source(folder)


def test_a_run_without_a_completed_row_is_refused(tmp_path: Path) -> None:
    def fail(task: Task) -> None:
        raise ValueError("no")

    folder = first_run(tmp_path, fail)
    with pytest.raises(SourceError, match="that run completed no row"):
        open_source(folder)
    with pytest.raises(SourceError, match=r"there is no \.peerloom/state\.json"):
        open_source(tmp_path, format="run")
