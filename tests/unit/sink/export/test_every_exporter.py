"""The contract of every exporter, and a user's own one."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from training_rows import all_rows, commit, dialogue, read_lines

import peerloom
from peerloom.errors import ConfigError
from peerloom.sink.export.exporter import EXPORTERS
from peerloom.sink.export.writer import Selection, export

OWN = """
import csv

class Csv:
    suffix = ".csv"

    def write(self, rows, target):
        with target.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "outcome"])
            writer.writerows([row["id"], row["outcome"]] for row in rows)
        return []

not_one = 3
"""


def _csv(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


Reader = Callable[[Path], list[dict[str, Any]]]

ALL: list[tuple[str, Reader]] = [
    *((name, read_lines) for name in ("atif", "dpo", "grpo", "jsonl", "kto", "openai", "sft", "sharegpt")),
    ("parquet", lambda path: pq.read_table(path).to_pylist()),
    ("exporter_of_mine.py:Csv", _csv),
]
"""Every exporter, with the function that reads its files; a new one is a line here."""


@pytest.fixture(autouse=True)
def exporter_of_mine(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.getbasetemp() / "mine"  # one for all tests, since a module is imported once
    folder.mkdir(exist_ok=True)
    (folder / "exporter_of_mine.py").write_text(OWN)
    monkeypatch.chdir(folder)


def test_every_exporter_is_tested() -> None:
    assert set(EXPORTERS.names()) <= {name for name, _ in ALL}


GROUPED = ("dpo", "grpo")
"""The exporters whose records are made from all trials of an input row."""
every_exporter = pytest.mark.parametrize(
    ("name", "read"), ALL, ids=lambda each: each if isinstance(each, str) else ""
)


@every_exporter
def test_the_selected_rows_are_written(run_dir: Path, tmp_path: Path, name: str, read: Reader) -> None:
    commit(run_dir, [*all_rows(), dialogue(7, 0, 1, outcome="failed"), dialogue(7, 1, 2, outcome="failed")])
    (written,) = export(run_dir, tmp_path / "rows.any", format=name)
    expected = 3 if name in GROUPED else 6
    assert (written.rows, written.skipped) == (expected, {})
    records = read(tmp_path / "rows.any")
    assert len(records) == expected
    if "id" in records[0]:
        assert [record["id"] for record in records] == [row["id"] for row in all_rows()]
    (rejected,) = export(run_dir, tmp_path / "others", format=name, select=Selection(rejected=True))
    assert rejected.rows == (1 if name in GROUPED else 2)
    selected = Selection(where='input.number == 1 and outcome == "completed"')
    (few,) = export(run_dir, tmp_path / "few", format=name, select=selected)
    assert few.rows == (1 if name in GROUPED else 2)


@every_exporter
def test_an_existing_file_stays(run_dir: Path, tmp_path: Path, name: str, read: Reader) -> None:
    commit(run_dir, all_rows())
    target = tmp_path / "rows.any"
    target.write_text("old")
    with pytest.raises(ConfigError, match=r"rows\.any exists already: .*--force"):
        export(run_dir, target, format=name)
    steps = [1, 2]
    with pytest.raises(IndexError):
        export(run_dir, target, format=name, on_row=steps.pop, select=Selection(force=True))
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["rows.any"]
    (written,) = export(run_dir, target, format=name, select=Selection(force=True))
    assert len(read(target)) == written.rows


@every_exporter
def test_without_rows_there_is_no_file(run_dir: Path, tmp_path: Path, name: str, read: Reader) -> None:
    commit(run_dir, [dialogue(0, 0, 1, outcome="failed")])
    with pytest.raises(ConfigError, match=r"rows\.any was not written, because .* has no completed row"):
        export(run_dir, tmp_path / "rows.any", format=name)
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []


@every_exporter
def test_trials_of_an_input_row_are_in_one_part(
    run_dir: Path, tmp_path: Path, name: str, read: Reader
) -> None:
    commit(run_dir, [dialogue(number, trial, trial) for number in range(40) for trial in range(2)])
    split = Selection(test_fraction=0.5)
    train, test = export(run_dir, tmp_path / "rows.any", format=name, select=split)
    assert (train.path.name, test.path.name) == ("rows-train.any", "rows-test.any")
    assert train.rows + test.rows == (40 if name in GROUPED else 80)
    assert train.rows and test.rows
    if name not in GROUPED:
        assert train.rows % 2 == test.rows % 2 == 0
    assert len(read(test.path)) == test.rows


def test_a_run_leaves_a_file_of_any_exporter(tmp_path: Path) -> None:
    def run(fresh: bool = False) -> peerloom.RunResult:
        return peerloom.run(
            "coral",
            llm="simulated",
            engine="local",
            limit=2,
            run_dir=tmp_path / "run",
            fresh=fresh,
            config={"sink.format": "exporter_of_mine.py:Csv"},
            progress=False,
        )

    assert {row["id"] for row in _csv(run().run_dir / "data.csv")} == {row["id"] for row in run()}
    assert len(_csv(run(fresh=True).run_dir / "data.csv")) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "parqet",
            r"sink.format=parqet: there is no such format. Did you mean 'parquet'\?",
        ),
        ("exporter_of_mine.py:not_one", "is no exporter: it must be a class with `suffix` and `write`"),
        ("exporter_of_mine.py:Cvs", "cannot be imported: .*'Cvs'"),
        ("nowhere.py:Csv", r"sink.format=.*nowhere.py:Csv cannot be imported: there is no file"),
    ],
)
def test_an_exporter_that_is_not_there_is_named(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        peerloom.run(
            "coral", llm="simulated", config={"sink.format": name}, run_dir=tmp_path / "run", progress=False
        )
    assert not (tmp_path / "run").exists()
