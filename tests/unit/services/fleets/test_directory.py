"""What the directory says of fleets, and whether their supervisors are there."""

import os
import time
from pathlib import Path

import msgspec
import pytest

from peerloom.errors import ConfigError, ServiceError
from peerloom.services.fleets.directory import (
    Entry,
    Listed,
    NoFleet,
    directory,
    names,
    path_of,
    read,
    this_process,
    write,
)

URL = "http://127.0.0.1:8000/v1"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PEERLOOM_FLEETS", str(tmp_path / "fleets"))
    return tmp_path / "fleets"


def entry(**more) -> Entry:
    return Entry(model="m", endpoints=(Listed(url=URL),), **more)


def test_what_is_written_is_read(here: Path) -> None:
    said = entry(engine="vllm", supervisor=this_process(), beat=1.5, key=True)
    write(path_of("mine"), said)
    assert read(path_of("mine")) == said
    assert names() == ["mine"]
    assert os.listdir(here) == ["mine.json"]


def test_one_written_by_hand(tmp_path: Path) -> None:
    file = tmp_path / "ours.json"
    file.write_text(f'{{"model": "m", "endpoints": [{{"url": "{URL}"}}, {{"url": "x", "state": "lost"}}]}}')
    said = read(path_of(str(file)))
    assert (said.urls, said.life, said.state) == ((URL,), "none", "up")


def test_where_the_directory_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PEERLOOM_FLEETS")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert directory() == tmp_path / ".peerloom" / "fleets"


@pytest.mark.parametrize("name", ["", "..", "a b", "-x", "x/..", "../..json", "sub/x.yaml"])
def test_a_name_that_cannot_be_one(name: str) -> None:
    with pytest.raises(ConfigError, match="a fleet cannot be called"):
        path_of(name)


def test_a_missing_one_says_what_there_is(here: Path) -> None:
    write(path_of("other"), entry())
    with pytest.raises(NoFleet, match=r"no fleet mine \(.*fleets/mine\.json\); there are: other\."):
        read(path_of("mine"))


@pytest.mark.parametrize("text", ["{", '{"model": 3, "endpoints": []}', '{"model": "m"}'])
def test_a_file_that_says_something_else(here: Path, text: str) -> None:
    write(path_of("mine"), entry())
    path_of("mine").write_text(text)
    with pytest.raises(ServiceError, match=r"mine\.json cannot be read: "):
        read(path_of("mine"))


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "fleets").touch()
    with pytest.raises(ServiceError, match="PEERLOOM_FLEETS chooses another"):
        write(path_of("mine"), entry())


def test_life_of_a_supervisor() -> None:
    ours, now = this_process(), time.time()
    assert entry(supervisor=ours).life == "alive"
    for change in ({"began": ours.began - 100}, {"pid": 2**22 + 1}):
        assert entry(supervisor=msgspec.structs.replace(ours, **change), beat=now).life == "dead"
    elsewhere = msgspec.structs.replace(ours, host="elsewhere")
    assert entry(supervisor=elsewhere, beat=now).life == "alive"
    assert entry(supervisor=elsewhere, beat=now - 100).life == "silent"
