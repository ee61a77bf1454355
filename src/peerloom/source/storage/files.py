"""Find the files that the user's paths, URLs and patterns name, and check that they can be read."""

import glob
import os
import stat
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

from peerloom.errors import SourceError
from peerloom.source.storage.urls import find_urls, is_url, one_line, open_url, url_suffix
from peerloom.values import escaped

COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
"""The ends of the names of compressed files."""
_REQUESTS = 16  # at once
_POINTER = b"version https://git-lfs"

In = TypeVar("In")
Out = TypeVar("Out")


class SourceFile(NamedTuple):
    """An input file: its absolute path or URL, the name given by the user, and its size in bytes.

    The size is -1 if a server does not report it. `ranged` is whether byte ranges of it can be read.
    """

    path: str
    name: str
    size: int
    ranged: bool = True

    @property
    def remote(self) -> bool:
        """Whether the file is behind a URL."""
        return is_url(self.path)

    @property
    def suffix(self) -> str:
        """The name in lower case, to be compared by `endswith`."""
        return url_suffix(self.path) if self.remote else self.path.lower()

    @property
    def seekable(self) -> bool:
        """Whether a row can be read without the data before it."""
        return self.ranged and not self.suffix.endswith(COMPRESSED)

    def open(self) -> BinaryIO:
        """Open the file for reading."""
        return open_url(self.path, self.ranged) if self.remote else open(self.path, "rb")


def maybe_compressed(*suffixes: str) -> tuple[str, ...]:
    """Return the suffixes, and each with the suffix of each compression."""
    return tuple(suffix + end for suffix in suffixes for end in ("", *COMPRESSED))


def expand(pattern: str) -> list[SourceFile]:
    """Return the files that one path, URL or pattern names."""
    if is_url(pattern):
        return [SourceFile(url, url, size, ranged) for url, size, ranged in find_urls(pattern)]
    return [local_file(name) for name in matches(pattern)]


def local_file(name: str) -> SourceFile:
    """Return a local file."""
    check_name(name)
    return SourceFile(os.path.abspath(name), name, _readable_size(name))


def check_name(name: str) -> None:
    """Raise SourceError for a name that is not UTF-8, since rows and messages could not contain it."""
    if escaped(name) != name:
        raise SourceError(f"the name of {escaped(name)} is not UTF-8: rename it, or link to it")


def identity(file: SourceFile) -> str:
    """Return a string that is equal for all names of the same file."""
    return file.path if file.remote else os.path.realpath(file.path)


def check_stored(file: SourceFile) -> None:
    """Raise SourceError for a file of a repository whose content was not downloaded."""
    if not file.remote and 0 < file.size < 1024:
        with file.open() as stream:
            if stream.read(len(_POINTER)) == _POINTER:
                folder = os.path.dirname(file.name) or "."
                raise SourceError(f"{file.name} is only a pointer of Git LFS: run git lfs pull in {folder}")


@contextmanager
def reading(file: SourceFile) -> Generator[None]:
    """Convert errors while a file is read to a SourceError that names it."""
    try:
        yield
    except SourceError:
        raise
    except OSError as error:
        raise SourceError(f"{file.name} cannot be read any more: {error.strerror or error}") from error
    except Exception as error:
        if not file.remote:
            raise
        raise SourceError(f"{file.name} cannot be read any more: {one_line(error)}") from error


def for_all(function: Callable[[In], Out], items: Sequence[In], *, remote: bool) -> list[Out]:
    """Return the function's results for all items, in order, computed concurrently if they are remote."""
    if not remote or len(items) < 2:
        return list(map(function, items))
    with ThreadPoolExecutor(_REQUESTS, "peerloom-source") as pool:
        return list(pool.map(function, items))


def matches(pattern: str) -> list[str]:
    """Return the paths that match a local path or pattern; for a pattern, files only."""
    expanded = os.path.expanduser(pattern)
    if os.path.lexists(expanded):
        return [expanded]
    if not glob.has_magic(expanded):
        raise SourceError(f"no file {pattern}.{_nearest(Path(expanded))}")
    found = [name for name in sorted(glob.glob(expanded, recursive=True)) if not os.path.isdir(name)]
    if not found:
        raise SourceError(f"no file matches {pattern}.{_nearest(Path(expanded))}")
    return found


def _readable_size(name: str) -> int:
    try:
        with open(name, "rb", opener=_open_nonblocking) as file:
            status = os.fstat(file.fileno())
    except IsADirectoryError as error:
        raise SourceError(f"{name} is a directory: name its files, as in {Path(name) / '*.jsonl'}") from error
    except OSError as error:
        raise SourceError(f"{name} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise SourceError(f"{name} is not a regular file; rows may be read again, so save it to one first")
    return status.st_size


def _open_nonblocking(name: str, flags: int) -> int:
    """Open a path without blocking, as opening a pipe does until it has a writer."""
    return os.open(name, flags | os.O_NONBLOCK)


def _nearest(missing: Path) -> str:
    """Return a sentence with the existing names beside the first missing part of a path."""
    while not missing.parent.is_dir():
        missing = missing.parent
    try:
        names = sorted(entry.name for entry in missing.parent.iterdir())
    except OSError:
        return ""
    close = get_close_matches(missing.name, names, n=1)
    if close:
        return f" Did you mean {missing.parent / close[0]}?"
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f" {missing.parent.resolve()} has: {shown or 'nothing'}."
