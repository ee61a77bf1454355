"""Download a .gguf file from the Hugging Face Hub through `huggingface-hub` and its cache.

A cached file is used without a request, so resuming a run needs no network. The endpoint (`HF_ENDPOINT`), the
cache (`HF_HOME`, `HF_HUB_CACHE`) and the token for gated repositories (`HF_TOKEN`) are settings of that
library; this module never reads the token.
"""

import importlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from peerloom.errors import ModelError

Progress = Callable[[int, int | None], None]

PREFIX = "hf:"
FORM = "hf:owner/repository/file.gguf"

_MODEL = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w.-]+))?/(?P<file>[^@]+\.gguf)"
)
_SHARD = re.compile(r"(.+-)00001-of-(\d{5})\.gguf")


@dataclass(frozen=True, slots=True)
class Reference:
    """A file on the Hub; `revision` is a branch, tag or commit, None for the main branch."""

    repo: str
    file: str
    revision: str | None = None

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{PREFIX}{self.repo}{revision}/{self.file}"

    @property
    def files(self) -> list[str]:
        """The file, or all shards if it is the first of several."""
        shard = _SHARD.fullmatch(self.file)
        if shard is None:
            return [self.file]
        return [f"{shard[1]}{number:05}-of-{shard[2]}.gguf" for number in range(1, int(shard[2]) + 1)]


def parse(model: str) -> Reference | None:
    """Parse a reference to the Hub, with or without the prefix `hf:`; None if it must be a name or a path.

    Raises:
        ModelError: if a reference with the prefix `hf:` is malformed.
    """
    given = model.removeprefix(PREFIX)
    match = _MODEL.fullmatch(given)
    if match is not None and ".." not in given.split("/"):
        return Reference(match["repo"], match["file"], match["revision"])
    if model.startswith(PREFIX):
        raise ModelError(f"llm.model={model}: a model of the hub is written {FORM}")
    return None


def check_installed() -> None:
    """Raise ModelError with installation instructions unless `huggingface-hub` is installed."""
    _library()


def cached(reference: Reference) -> Path | None:
    """Return the path of the file in the cache, or None if it is not cached completely.

    Raises:
        ModelError: if the library is not installed.
    """
    hub = _library()
    paths = [
        hub.try_to_load_from_cache(reference.repo, file, revision=reference.revision)
        for file in reference.files
    ]
    return Path(paths[0]) if all(isinstance(path, str) for path in paths) else None


def size(reference: Reference) -> int:
    """Request the size of the file from the Hub, in bytes.

    Raises:
        ModelError: if there is no such file, or access is denied.
    """
    hub = _library()

    def size_of(file: str) -> int:
        url = hub.hf_hub_url(reference.repo, file, revision=reference.revision, endpoint=_endpoint())
        return hub.get_hf_file_metadata(url, endpoint=_endpoint()).size or 0

    return sum(_call(reference, partial(size_of, file)) for file in reference.files)


def fetch(reference: Reference, progress: Progress) -> Path:
    """Download the file unless it is cached, and return its path; blocks.

    `progress` is called with the bytes so far and in total, of each shard; it may raise to end the download.

    Raises:
        ModelError: if there is no such file, access is denied, or the Hub cannot be reached.
    """
    found = cached(reference)
    if found is not None:
        return found
    hub = _library()
    errors: list[BaseException] = []
    bar = _bar(progress, errors)
    options = {"revision": reference.revision, "endpoint": _endpoint(), "tqdm_class": bar}
    paths: list[str] = []
    for file in reference.files:
        try:
            paths.append(_call(reference, partial(hub.hf_hub_download, reference.repo, file, **options)))
        except ModelError:
            if errors:
                raise errors[0] from None
            raise
    return Path(paths[0])


def _bar(progress: Progress, errors: list[BaseException]) -> type[Any]:
    """Return a silent progress bar class that calls `progress`, and appends its exceptions to `errors`."""
    base: Any = importlib.import_module("tqdm").tqdm

    class Bar(base):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._total = kwargs.get("total")
            self._done = kwargs.get("initial") or 0
            super().__init__(*args, **{**kwargs, "disable": True})  # pyright: ignore[reportUnknownMemberType]

        def update(self, n: float | None = 1) -> None:
            self._done += n or 0
            try:
                progress(int(self._done), self._total)
            except BaseException as error:
                errors.append(error)
                raise

    return Bar


def _library() -> Any:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise ModelError(
            "there is no such file here, and models of the Hugging Face hub need the package "
            "huggingface-hub: pip install 'peerloom[hub]'"
        ) from error


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


def _call(reference: Reference, function: Callable[[], Any]) -> Any:
    """Call a function of the library, and raise all its exceptions as ModelError."""
    try:
        return function()
    except Exception as error:  # its text is not shown, since it may contain signed URLs
        raise ModelError(f"{reference}: {_why(error, reference)}") from error


def _why(error: Exception, reference: Reference) -> str:
    errors: Any = importlib.import_module("huggingface_hub.errors")
    where = _endpoint() or "the Hugging Face hub"
    token = "a token in the environment variable HF_TOKEN"
    known = {  # subclasses first
        errors.GatedRepoError: f"{reference.repo} is gated: accept its terms on its page, and put {token}",
        errors.RepositoryNotFoundError: f"{where} has no repository {reference.repo} (a private one needs "
        f"{token}); nor is there such a file here, if a path was meant",
        errors.RevisionNotFoundError: f"{reference.repo} has no revision {reference.revision}",
        errors.OfflineModeIsEnabled: "it is not in the cache, and HF_HUB_OFFLINE is set",
        errors.LocalEntryNotFoundError: f"it is not in the cache, and {where} cannot be reached: "
        "is there a network?",
        errors.EntryNotFoundError: f"{reference.repo} has no such file: its page lists those it has",
    }
    for kind, message in known.items():
        if isinstance(error, kind):
            return message
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return f"{where} answered with HTTP status {status}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'the cache'} cannot be written: {error.strerror}"
    kind = type(error).__name__
    return f"{where} cannot be reached, or broke off ({kind}): the next pull resumes the download"
