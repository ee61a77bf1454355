"""Data sets: the real library on data sets that lie here, the Hub itself played by them."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import close_session
from kinds import parquet

from peerloom.errors import SourceError
from peerloom.source.formats.hf import DataSet, is_data_set, parse_data_set
from peerloom.source.open import open_source

TRAIN = [{"n": n, "text": f"row {n}"} for n in range(300)]
TEST = [{"n": 1000, "text": "row 1000"}]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A data set as it lies on the Hub: Parquet files by split."""
    folder = tmp_path / "set" / "data"
    folder.mkdir(parents=True)
    parquet(folder / "train-00000.parquet", TRAIN)
    parquet(folder / "test-00000.parquet", TEST)
    return tmp_path / "set"


class Hub:
    """`datasets` with one data set behind its name; remembers what it was asked for."""

    def __init__(self, files: Path, datasets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files = files
        self.asked: list[Any] = []
        self._names, self._load = datasets.get_dataset_split_names, datasets.load_dataset
        monkeypatch.setattr(datasets, "get_dataset_split_names", self.names)
        monkeypatch.setattr(datasets, "load_dataset", self.load)

    def names(self, path: str, config_name: str | None, revision: str | None) -> list[str]:
        assert path == "owner/name"
        return self._names(str(self.files), config_name=config_name)

    def load(self, path: str, name: str | None, *, split: str | None, revision: str | None) -> Any:
        assert path == "owner/name"
        self.asked.append((name, split, revision))
        return self._load(str(self.files), name, split=split)


@pytest.fixture
def hub(files: Path, datasets: Any, monkeypatch: pytest.MonkeyPatch) -> Hub:
    return Hub(files, datasets, monkeypatch)


def test_a_split_of_the_hub(hub: Hub) -> None:
    source = open_source("hf://datasets/owner/name@abc?split=train&name=default", key="n", limit=299)
    rows = list(source.rows(0, 1))
    assert [row.data for row in rows] == TRAIN[:299]
    assert [row.label for row in rows] == list(range(299))
    assert source.total() == 299
    assert set(hub.asked) == {("default", "train", "abc")}


def test_one_of_several_splits_must_be_chosen(hub: Hub) -> None:
    with pytest.raises(SourceError, match=r"has several splits \(.*\): choose one, as in .*\?split=t"):
        open_source("hf://datasets/owner/name")
    assert hub.asked == []  # nothing was downloaded
    (hub.files / "data" / "test-00000.parquet").unlink()
    assert open_source("hf://datasets/owner/name").total() == 300


def test_a_split_that_is_not_there(hub: Hub) -> None:
    with pytest.raises(SourceError, match=r"hf://.* cannot be loaded: .*dev"):
        open_source("hf://datasets/owner/name?split=dev")


def test_a_part_of_a_split(hub: Hub) -> None:
    source = open_source("hf://datasets/owner/name?split=train[10:12]")
    assert [row.data["n"] for row in source.rows(0, 1)] == [10, 11]


def test_a_folder_of_files_by_format(files: Path) -> None:
    source = open_source(f"{files}?split=test", format="hf")
    assert [row.data for row in source.rows(0, 1)] == TEST
    with pytest.raises(
        SourceError, match=r"no folder .*nowhere; a data set of the Hub is written as in hf://"
    ):
        open_source(files / "nowhere", format="hf")


def test_saved_splits(tmp_path: Path, datasets: Any) -> None:
    splits = {"train": datasets.Dataset.from_list(TRAIN[:3]), "test": datasets.Dataset.from_list(TEST)}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "both"))
    source = open_source(f"{tmp_path}/both?split=test")
    assert [row.data for row in source.rows(0, 1)] == TEST
    with pytest.raises(SourceError, match=r"has several splits \(train, test\)"):
        open_source(tmp_path / "both")
    with pytest.raises(SourceError, match=r"there is no split 'dev'; there are: train, test"):
        open_source(f"{tmp_path}/both?split=dev")


def test_an_image_is_a_bad_row_and_needs_no_library(tmp_path: Path, datasets: Any) -> None:
    images = datasets.Dataset.from_list([{"n": 0, "image": {"bytes": b"\x89PNG\xff", "path": None}}])
    images.cast_column("image", datasets.Image()).save_to_disk(str(tmp_path / "images"))
    (row,) = open_source(tmp_path / "images").rows(0, 1)
    assert "images:1: field 'image' cannot be written as JSON" in row.error


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The Hub's library as with HF_HUB_OFFLINE; its client, which it keeps, is made anew on both sides."""
    close_session()
    for switch in ("huggingface_hub.constants.HF_HUB_OFFLINE", "datasets.config.HF_HUB_OFFLINE"):
        monkeypatch.setattr(switch, True)
    yield
    close_session()


@pytest.mark.usefixtures("offline")
def test_the_hub_out_of_reach_is_a_source_error() -> None:
    words = r"hf://datasets/owner/none\?split=train cannot be loaded: .*Offline"
    with pytest.raises(SourceError, match=words):
        open_source("hf://datasets/owner/none?split=train")


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(SourceError, match=r"pip install 'peerloom\[hub\]'"):
        open_source("hf://datasets/owner/name?split=train")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("hf://datasets/squad", ("squad", None, None, None)),
        ("hf://datasets/o/n", ("o/n", None, None, None)),
        ("hf://datasets/o/n/?split=train", ("o/n", "train", None, None)),
        ("hf://datasets/o/n@v1?name=en&split=a%2Bb", ("o/n", "a+b", "en", "v1")),
        ("hf://datasets/o/n?revision=v2", ("o/n", None, None, "v2")),
    ],
)
def test_addresses(written: str, expected: tuple[Any, ...]) -> None:
    assert is_data_set(written)
    assert parse_data_set(written) == DataSet(written, *expected)


@pytest.mark.parametrize("query", ["split=", "config=en", "train"])
def test_what_is_asked_for_must_be_understood(query: str) -> None:
    with pytest.raises(SourceError, match=r"\?.*as in hf://datasets/owner/name\?split=train&name=default"):
        parse_data_set(f"hf://datasets/o/n?{query}")


@pytest.mark.parametrize("path", ["hf://datasets/o/n/data/*.parquet", "hf://datasets/o/n/a.jsonl", "o/n"])
def test_files_of_the_hub_are_no_data_set(path: str) -> None:
    assert not is_data_set(path)
