import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import peerloom as api
from peerloom.sink.read import read_rows

LOCAL = ("engine=local", "llm=simulated")


@pytest.fixture
def run_dir(peerloom, tmp_path: Path) -> Path:
    assert peerloom("run", "coral", *LOCAL, "limit=3", "-q", "--run-dir", tmp_path / "run").code == 0
    return tmp_path / "run"


def test_parquet_is_what_the_jsonl_is(peerloom, run_dir: Path, tmp_path: Path) -> None:
    ended = peerloom("export", run_dir, "--to", tmp_path / "rows.parquet")
    assert ended.code == 0
    assert ended.out == (
        f"3 rows in {tmp_path}/rows.parquet\n"
        "as JSON text, because their types differ between rows: turns[].value\n"
    )
    rows = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    for made, row in zip(rows, api.read_rows(run_dir, rejected=False), strict=True):
        for name in ("id", "input", "messages", "result", "usage", "timing", "provenance"):
            assert made[name] == row[name]
        values = [json.loads(turn["value"]) for turn in made["turns"] if turn["value"] is not None]
        assert values == [turn["value"] for turn in row["turns"] if "value" in turn]


def test_jsonl_has_the_committed_rows(peerloom, run_dir: Path, tmp_path: Path) -> None:
    ended = peerloom("export", run_dir, "--to", tmp_path / "rows.jsonl", "--json")
    assert json.loads(ended.out) == {
        "path": str(tmp_path / "rows.jsonl"),
        "rows": 3,
        "json": [],
        "skipped": {},
    }
    exported = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert exported == list(read_rows(run_dir, rejected=False))
    assert exported[0]["turns"][0]["calls"][0]["request"]["messages"], "requests in full"


def test_without_a_file_it_goes_to_the_run_directory(peerloom, run_dir: Path) -> None:
    assert f"3 rows in {run_dir}/data.parquet" in peerloom("export", run_dir).out
    assert f"0 rows in {run_dir}/rejected.parquet" in peerloom("export", run_dir, "--rejected").out
    again = ("run", "coral", *LOCAL, "limit=3", "-q", "--run-dir", run_dir)
    assert peerloom(*again).code == 0
    assert peerloom(*again, "--fresh").code == 0
    assert not (run_dir / "data.parquet").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "there is no run directory nowhere"),
        (["run", "--to", "rows.csv"], "rows.csv: rows are written as .jsonl or .parquet"),
        (["run", "--to", "run/mine.jsonl"], "run/mine.jsonl is in the run directory"),
    ],
)
def test_what_cannot_be_exported(
    peerloom, run_dir: Path, tmp_path: Path, monkeypatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = peerloom("export", *arguments)
    assert ended.code == 2
    assert ended.err.startswith(f"error: {message}")
    assert len(ended.err.splitlines()) == 1


def test_a_run_with_parquet_output_leaves_both(peerloom, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    ended = peerloom("run", "coral", *LOCAL, "limit=2", "sink.format=parquet", "--run-dir", directory)
    assert f"also in {directory}/*.parquet" in ended.out
    assert pq.read_table(directory / "data.parquet").num_rows == 2
    assert not (directory / "rejected.parquet").exists()
    assert len(list(api.read_rows(directory))) == 2
    assert peerloom("resume", directory, "limit=3").code == 0
    assert pq.read_table(directory / "data.parquet").num_rows == 3


def test_a_finished_run_gets_its_parquet_by_being_resumed_with_it(peerloom, run_dir: Path) -> None:
    ended = peerloom("resume", run_dir, "sink.format=parquet")
    assert ended.code == 0
    assert "nothing to do" in ended.err
    assert pq.read_table(run_dir / "data.parquet").num_rows == 3


def test_rejected_rows_have_a_file_of_their_own(peerloom, tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"question": "?", "options": ["a", "b"], "answer": "A"}\n{"bad": 1}\n')
    given = (f"source.path={tmp_path}/q.jsonl", "sink.format=parquet", "--run-dir", tmp_path / "run")
    assert peerloom("run", "coral", *LOCAL, *given, "-q").code == 0
    assert pq.read_table(tmp_path / "run" / "data.parquet").num_rows == 1
    (rejected,) = pq.read_table(tmp_path / "run" / "rejected.parquet").to_pylist()
    assert (rejected["outcome"], rejected["reason"]) == ("failed", "bad_row")


def test_another_format_is_refused(peerloom, tmp_path: Path) -> None:
    ended = peerloom("run", "coral", *LOCAL, "sink.format=parket", "--run-dir", tmp_path / "run")
    assert ended.code == 2
    assert "sink.format=parket: there is no such format. Did you mean 'parquet'?" in ended.err


def test_a_parquet_file_that_cannot_be_written_says_so_and_keeps_the_rows(
    peerloom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("peerloom.sink.export.formats.parquet.ParquetExporter.write", full)
    directory = tmp_path / "run"
    given = ("run", "coral", *LOCAL, "limit=1", "-q", "sink.format=parquet", "--run-dir", directory)
    ended = peerloom(*given)
    assert ended.code == 1
    assert f"error: no room left to write {directory}/data.parquet" in ended.err
    assert f"peerloom resume {directory}" in ended.err
    assert len(list(api.read_rows(directory))) == 1
    monkeypatch.undo()
    assert peerloom(*given).code == 0
    assert pq.read_table(directory / "data.parquet").num_rows == 1


def test_the_same_in_python(run_dir: Path, tmp_path: Path) -> None:
    config = {"sink.format": "parquet", "limit": 3}
    result = api.run("coral", llm="simulated", engine="local", config=config, run_dir=run_dir)
    assert pq.read_table(run_dir / "data.parquet").num_rows == len(result) == 3
    assert [each.rows for each in result.export(tmp_path / "rows.parquet")] == [3]
    assert pq.read_table(tmp_path / "rows.parquet").num_rows == 3
    (others,) = result.export(tmp_path / "others.jsonl", rejected=True)
    assert others.path.read_bytes() == b""
