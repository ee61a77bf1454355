import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from sink_helpers import rows

from peerloom.errors import ConfigError, RunDirError
from peerloom.sink.errors import SinkError
from peerloom.sink.export import arrow
from peerloom.sink.export import writer as exporting
from peerloom.sink.export.formats import parquet
from peerloom.sink.export.shape import MAX_DEPTH, MAX_FIELDS, MAX_SHAPES
from peerloom.sink.export.writer import Selection, export, export_all
from peerloom.sink.rows import Row
from peerloom.sink.shard import ShardFiles
from peerloom.stored import to_stored
from peerloom.task import TaskId

CALLS = [{"request": {"messages": [{"role": "user", "content": "Hi"}]}, "reply": {"text": "later"}}]


def commit(run_dir: Path, contents: list[dict[str, Any]], outcome: str = "completed") -> ShardFiles:
    shard = ShardFiles.take(run_dir, 0, 1)
    lines = [
        Row(
            TaskId(0, number, 0),
            outcome,
            "",
            json.dumps(to_stored({"id": f"0-{number}-0", "outcome": outcome, **content})).encode(),
            {},
        )
        for number, content in enumerate(contents)
    ]
    shard.commit(lines)
    return shard


def round_trip(run_dir: Path, results: list[Any], target: Path) -> tuple[list[Any], list[str]]:
    """What becomes of these results, and which places of the file are JSON text."""
    commit(run_dir, [{"result": result} for result in results]).close()
    (exported,) = export(run_dir, target)
    table = pq.read_table(target)
    assert exported.rows == table.num_rows == len(results)
    assert json.loads(table.schema.metadata[b"peerloom"]) == {"json": exported.texts}
    return table.column("result").to_pylist(), exported.texts


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "rows.parquet"


def test_the_completed_rows_or_the_others(run_dir: Path, tmp_path: Path) -> None:
    shard = ShardFiles.take(run_dir, 0, 1)
    shard.commit(rows(range(9)))
    for suffix, read in ((".parquet", _read_parquet), (".jsonl", _read_jsonl)):
        (completed,) = export(run_dir, tmp_path / f"c{suffix}")
        (others,) = export(run_dir, tmp_path / f"r{suffix}", select=Selection(rejected=True))
        assert (completed.rows, others.rows) == (6, 3)
        assert [row["id"] for row in read(completed.path)] == [f"0-{n}-0" for n in (1, 2, 4, 5, 7, 8)]
        assert {row["outcome"] for row in read(others.path)} == {"failed"}
    shard.close()


def test_only_what_is_committed(run_dir: Path, tmp_path: Path) -> None:
    shard = ShardFiles.take(run_dir, 0, 1)
    shard.commit(rows([1, 2]))
    with max(run_dir.glob("data/*")).open("ab") as file:
        file.write(b'{"id": "0-99-0"}\n{"torn')
    assert [file.rows for end in ("jsonl", "parquet") for file in export(run_dir, tmp_path / f"a.{end}")] == [
        2,
        2,
    ]
    shard.close()


@pytest.mark.parametrize(
    "results",
    [
        [{"a": [1, 2], "b": {"c": "x"}}, {"a": [], "b": None}, None],
        [1, None, 2.5],
        [True, False],
        [-(2**63), 2**63 - 1],
        [0, 2**64 - 1],
        [[{"a": 1}, {"a": None}], []],
        [[[1.5], []], None],
        ["", "\0 \u202e \U0001f600"],
        [None, None],
        [{"": 1, "a.b": 2, "x\0y": 3}],
    ],
)
def test_what_agrees_stays_nested(run_dir: Path, target: Path, results: list[Any]) -> None:
    assert round_trip(run_dir, results, target) == (results, [])


@pytest.mark.parametrize(
    "results",
    [
        [1, "one"],
        [True, 0],
        [{"a": 1}, [1]],
        [2**60, 0.5],
        [-1, 2**64 - 1],
        [{}],
        [{f"k{n}": n} for n in range(MAX_FIELDS + 1)],
    ],
)
def test_what_differs_is_json_text(run_dir: Path, target: Path, results: list[Any]) -> None:
    texts, places = round_trip(run_dir, [*results, None], target)
    assert places == ["result"]
    assert [None if text is None else json.loads(text) for text in texts] == [*results, None]


def test_only_the_place_that_differs_is_text(run_dir: Path, target: Path) -> None:
    results = [{"kept": 1, "turns": [{"value": "a"}, {"value": True}, {}]}, {"kept": 2, "turns": None}]
    values, places = round_trip(run_dir, results, target)
    assert places == ["result.turns[].value"]
    assert values[0] == {"kept": 1, "turns": [{"value": '"a"'}, {"value": "true"}, {"value": None}]}


def test_a_field_that_comes_late_is_a_column_of_all_rows(run_dir: Path, target: Path) -> None:
    commit(run_dir, [{}] * 50 + [{"detail": "late"}]).close()
    export(run_dir, target)
    assert pq.read_table(target).column("detail").to_pylist() == [None] * 50 + ["late"]


def test_what_a_model_wrote_cannot_make_a_file_of_any_size(run_dir: Path, target: Path) -> None:
    deep: Any = 1
    for _ in range(MAX_DEPTH + 200):
        deep = {"deeper": deep}
    wide = [{f"{place}": {f"{n}": n for n in range(MAX_FIELDS)} for place in range(MAX_FIELDS)}]
    values, places = round_trip(run_dir, [deep, *wide], target)
    assert places
    assert len(pq.ParquetFile(target).schema.names) <= MAX_SHAPES + len(parquet.COLUMNS)
    assert len(values) == 2


def test_many_batches_have_one_schema(run_dir: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "BATCH_BYTES", 200)
    values, _ = round_trip(run_dir, [*range(40), 0.5], target)
    assert values == [*range(40), 0.5]
    assert pq.ParquetFile(target).num_row_groups > 5


def test_no_rows_make_a_file_with_the_usual_columns(run_dir: Path) -> None:
    assert [file.rows for file in export_all(run_dir, "parquet")] == [0]
    assert pq.read_table(run_dir / "data.parquet").column_names == list(parquet.COLUMNS)


def test_the_run_directory_takes_parquet_under_two_names(run_dir: Path) -> None:
    shard = ShardFiles.take(run_dir, 0, 1)
    shard.commit(rows(range(3)))
    shard.close()
    assert [each.path.name for each in export_all(run_dir, "parquet")] == ["data.parquet", "rejected.parquet"]
    assert sorted(path.name for path in run_dir.iterdir() if path.is_file()) == [
        "data.parquet",
        "rejected.parquet",
    ]
    for path in run_dir.glob("rejected/*"):
        path.unlink()
    export_all(run_dir, "parquet")
    assert not (run_dir / "rejected.parquet").exists()


@pytest.mark.parametrize("name", ["data/part-000-0001-0000.jsonl", "mine.parquet", "rejected.parquet"])
def test_the_runs_own_files_are_not_written_over(run_dir: Path, name: str) -> None:
    commit(run_dir, [{}]).close()
    before = (run_dir / "data" / "part-000-0001-0000.jsonl").read_bytes()
    with pytest.raises(ConfigError, match="in the run directory, among the run's own files"):
        export(run_dir, run_dir / name)
    assert (run_dir / "data" / "part-000-0001-0000.jsonl").read_bytes() == before


def test_another_kind_of_file_is_refused(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rows\.csv: rows are written as \.jsonl or \.parquet"):
        export(run_dir, tmp_path / "rows.csv")
    with pytest.raises(RunDirError, match="there is no run directory"):
        export(tmp_path / "nowhere", tmp_path / "a.jsonl")


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_what_ends_the_export_leaves_the_old_file(run_dir: Path, tmp_path: Path, suffix: str) -> None:
    commit(run_dir, [{}] * 5).close()
    target = tmp_path / "out" / f"rows{suffix}"
    target.parent.mkdir()
    target.write_text("old")
    steps = [1, 2, 3]
    on_row = steps.pop
    with pytest.raises(IndexError):
        export(run_dir, target, on_row=on_row, select=Selection(force=True))
    assert [(path.name, path.read_text()) for path in target.parent.iterdir()] == [(target.name, "old")]


def test_a_file_that_cannot_be_written(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(SinkError, match=r"a\.parquet could not be written: File name too long"):
        export(run_dir, tmp_path / f"{'a' * 250}.parquet")


def test_a_folder_that_is_missing_is_named(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"a\.parquet cannot be written: there is no folder .*nowhere; create"
    ):
        export(run_dir, tmp_path / "nowhere" / "a.parquet")


def test_rows_that_change_meanwhile_are_no_file(
    run_dir: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(run_dir, [{"result": 1}, {"result": 2}]).close()
    part = next(run_dir.glob("data/*"))
    real = arrow.RowTypes.columns

    def seen_then_shortened(*args: Any) -> Any:
        os.truncate(part, len(part.read_bytes().splitlines(keepends=True)[0]))
        return real(*args)

    monkeypatch.setattr(arrow.RowTypes, "columns", seen_then_shortened)
    with pytest.raises(RunDirError, match="changed while they were written"):
        export(run_dir, target)
    assert list(target.parent.glob("*.parquet")) == []


def test_two_exports_at_once_do_not_share_a_file(run_dir: Path, target: Path, monkeypatch) -> None:
    commit(run_dir, [{}]).close()
    (target.parent / f".{target.name}.1.tmp").write_text("of another process")
    monkeypatch.setattr(exporting.os, "getpid", lambda: 2)
    assert [file.rows for file in export(run_dir, target)] == [1]
    assert (target.parent / f".{target.name}.1.tmp").read_text() == "of another process"


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def _read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


ODD_ROWS: list[dict[str, Any]] = [
    {"result": "a", "turns": [], "messages": []},
    {
        "input": {"n": 1, "when": "2024-01-02", "deep": {"mixed": 1}},
        "turns": [
            {
                "agent": "a",
                "message": {"role": "assistant", "content": None},
                "value": "2024-01-02",
                "cut": 3,
            },
            {"agent": "b", "value": [1.5, None], "usage": {"calls": 1}, "token_ids": [1, 2]},
        ],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "\0é"}]}],
        "provenance": {"run": "r"},
        "own": True,
    },
    {
        "input": {"n": 2, "deep": {"mixed": "x"}},
        "turns": [{"agent": "a", "value": "later", "calls": CALLS}],
        "messages": [{"role": "user", "content": "x"}],
        "error": {"type": "E", "line": 3},
    },
]


def test_rows_of_every_shape_are_read_back(run_dir: Path, target: Path) -> None:
    commit(run_dir, ODD_ROWS).close()
    (exported,) = export(run_dir, target)
    assert exported.texts == ["input.deep.mixed", "turns[].value"]
    first, second, third = pq.read_table(target).to_pylist()
    assert [row["id"] for row in (first, second, third)] == ["0-0-0", "0-1-0", "0-2-0"]
    assert (first["turns"], first["messages"], first["result"], first["input"]) == ([], [], "a", None)
    assert second["input"] == {"n": 1, "when": "2024-01-02", "deep": {"mixed": "1"}}
    assert second["extra"] == {"own": True}
    one, two = second["turns"]
    assert (one["message"]["content"], one["value"], one["extra"]) == (None, '"2024-01-02"', {"cut": 3})
    assert (two["message"], two["value"], two["usage"], two["token_ids"]) == (
        None,
        "[1.5,null]",
        {"calls": 1},
        [1, 2],
    )
    (message,) = second["messages"]
    assert message["extra"] == {"content": [{"type": "text", "text": "\0é"}]}
    assert third["error"] == {"type": "E", "line": 3}
    (call,) = json.loads(third["turns"][0]["calls"])
    assert call["request"]["messages"] == [{"role": "user", "content": "Hi"}]
    assert set(third["turns"][0]) == {"agent", "message", "value", "usage", "token_ids", "calls", "extra"}


def test_a_damaged_row_is_named(run_dir: Path, target: Path) -> None:
    commit(run_dir, [{"result": 1}, {"result": 2}]).close()
    part = next(run_dir.glob("data/*"))
    part.write_bytes(part.read_bytes().replace(b'"result": "2"', b'"result": {2}'))
    with pytest.raises(RunDirError, match=r"part-000-0001-0000.jsonl:2 is damaged"):
        export(run_dir, target)
