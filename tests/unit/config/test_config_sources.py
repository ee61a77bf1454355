"""A source of the user's own: its keys are checked as the built-in ones, and it may need no path."""

import sys
from pathlib import Path

import pytest

import peerloom
from peerloom.config import Config, check, compose, to_yaml
from peerloom.config.build import make_source, resolve
from peerloom.config.resume import resume_values
from peerloom.errors import ConfigError, SourceError

FORMAT = """
from dataclasses import dataclass
from typing import Annotated

from peerloom import SourceFormat
from peerloom.options import FREE, SAME, Count


@dataclass(frozen=True, kw_only=True)
class Squares(SourceFormat):
    needs_path = False

    count: Annotated[Count, SAME] = 3
    note: Annotated[str | None, FREE] = None

    def rows(self, path):
        return [{"n": n, "square": n * n} for n in range(self.count)]


@dataclass(frozen=True, kw_only=True)
class FromFile(SourceFormat):
    def rows(self, path):
        with open(path) as file:
            return [{"path": path, "line": line} for line in file]


not_one = 3
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "squares_of_mine.py").write_text(FORMAT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "squares_of_mine", raising=False)
    return tmp_path


def checked(*overrides: str) -> Config:
    return resolve(check(compose("coral", overrides)), Path("sample.jsonl"))


def test_a_source_in_a_file_has_options(folder: Path) -> None:
    config = checked("source=./squares_of_mine.py:Squares", "source.count=4", "source.key=n", "limit=3")
    rows = list(make_source(config).rows(0, 1))
    assert [(row.data["square"], row.label) for row in rows] == [(0, 0), (1, 1), (4, 2)]
    kept = resume_values(config).same
    assert (kept["source.count"], kept["source.format"]) == (4, f"{folder}/squares_of_mine.py:Squares")
    assert "source.note" not in kept
    (folder / "run.yaml").write_text(to_yaml(config))
    assert check(compose(str(folder / "run.yaml"))).plain() == config.plain()


def test_a_source_runs() -> None:
    result = peerloom.run(
        workflow=peerloom.Sequence("echo"),
        agents={"echo": peerloom.FunctionAgent(lambda task: task.input["square"])},
        config={"source": "squares_of_mine.py:Squares", "source.count": 2},
        llm="simulated",
        engine="local",
        progress=False,
    )
    assert sorted(row["input"]["square"] for row in result) == [0, 1]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["source=parqet"], r"source.format=parqet: there is no such format. Did you mean 'parquet'\?"),
        (["source=squares_of_mine:not_one"], "is no source: it must be a subclass of SourceFormat"),
        (["source=squares_of_mine.py:Square"], "cannot be imported: .*'Square'"),
        (["source=./nowhere.py:Squares"], r"cannot be imported: there is no file .*/nowhere.py"),
        (
            ["source=squares_of_mine.py:Squares", "source.cont=3"],
            r"source.cont=3: there is no key 'source.cont'. Did you mean 'source.count'\?",
        ),
        (["source=squares_of_mine.py:Squares", "source.count=0"], "source.count=0: must be 1 or more"),
        (["source.count=3"], "source.count=3: there is no key 'source.count'"),
        (["source=squares_of_mine.py:FromFile"], "source.path is needed"),
    ],
)
def test_a_mistake_is_named(monkeypatch: pytest.MonkeyPatch, overrides: list[str], message: str) -> None:
    monkeypatch.syspath_prepend(".")
    with pytest.raises(ConfigError, match=message):
        make_source(checked(*overrides))


def test_a_file_that_raises_is_named(folder: Path) -> None:
    (folder / "source_that_raises.py").write_text("1 / 0")
    with pytest.raises(ConfigError, match=r"source_that_raises\.py:X cannot .*: it raises ZeroDivisionError"):
        checked("source=./source_that_raises.py:X")


def test_a_file_that_its_rows_cannot_read_is_named(folder: Path) -> None:
    config = checked("source=./squares_of_mine.py:FromFile", "source.path=absent.txt")
    with pytest.raises(SourceError, match=r"absent\.txt cannot be read: .*No such file"):
        make_source(config)
