"""The clone of a data set's repository is read by its card, without the Hub's library."""

import sys
from pathlib import Path

import pytest
from kinds import ROWS, jsonl, parquet

import peerloom
from peerloom.errors import SourceError
from peerloom.source.open import open_source

CARD = """---
license: cc-by-4.0
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
  - split: test
    path: [data/test.jsonl]
- config_name: other
  data_files: more.csv
---
# A data set
"""


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "README.md").write_text(CARD)
    (tmp_path / "more.csv").write_text("n\n7\n")
    data = tmp_path / "data"
    data.mkdir()
    parquet(data / "train-00000-of-00002.parquet", ROWS[:9])
    parquet(data / "train-00001-of-00002.parquet", ROWS[9:])
    (data / "test.jsonl").write_bytes(jsonl(ROWS[:2]))
    return tmp_path


def test_splits_and_configurations_are_those_of_the_card(clone: Path) -> None:
    assert [row.data for row in open_source(f"{clone}?split=train").rows(0, 1)] == ROWS
    assert [row.data for row in open_source(f"{clone}?split=test&name=default").rows(0, 1)] == ROWS[:2]
    source = open_source(f"{clone}?name=other")
    assert [row.data for row in source.rows(0, 1)] == [{"n": "7"}]
    assert source.license == "cc-by-4.0"


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("", r"has several \(train, test\): choose one, as in .*\?split=train"),
        ("?split=dev", "there is no split 'dev'"),
        ("?name=third", "there is no name 'third'"),
    ],
)
def test_what_is_to_be_chosen_is_said(query: str, why: str, clone: Path) -> None:
    with pytest.raises(SourceError, match=why):
        open_source(f"{clone}{query}")


def test_without_configs_the_files_name_the_splits(clone: Path) -> None:
    (clone / "README.md").write_text("---\nlicense: other\nlicense_name: mine\n---\n")
    source = open_source(clone)
    assert (source.total(), source.license) == (len(ROWS), "mine")
    (clone / "data" / "train-00001-of-00002.parquet").rename(clone / "data" / "test.parquet")
    assert open_source(f"{clone}?split=test").total() == len(ROWS) - 9


@pytest.mark.parametrize("path", ["../x.jsonl", "https://h/x.jsonl", "/etc/*"])
def test_a_card_names_only_its_own_files(path: str, clone: Path) -> None:
    (clone / "README.md").write_text(f"---\nconfigs:\n- config_name: a\n  data_files: {path}\n---\n")
    with pytest.raises(SourceError, match="not in its folder"):
        open_source(clone)


@pytest.mark.parametrize("head", ["configs: [a", "configs: 3", "configs: [{data_files: 3}]"])
def test_a_malformed_card_is_named(head: str, clone: Path) -> None:
    (clone / "README.md").write_text(f"---\n{head}\n---\n")
    with pytest.raises(SourceError, match=r"README\.md"):
        open_source(clone)


def test_the_license_is_in_the_rows(clone: Path) -> None:
    agent = peerloom.FunctionAgent(lambda task: task.input["n"])
    result = peerloom.run(
        workflow=peerloom.Sequence("a"),
        agents={"a": agent},
        source=f"{clone}?split=test",
        llm="simulated",
        engine="local",
        run_dir=clone / "run",
    )
    assert [row["provenance"]["license"] for row in result] == ["cc-by-4.0"] * 2
