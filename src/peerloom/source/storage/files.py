"""From what the user wrote (paths, URLs, patterns) to files that can be read, or a located refusal."""

import glob
import os
import stat
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import BinaryIO, NamedTuple

from peerloom.errors import SourceError
from peerloom.source.storage.urls import find_urls, is_url, open_url, said, url_suffix
from peerloom.values import escaped


class SourceFile(NamedTuple):
    """One input file: its absolute path or URL, the name the user knows it by, and its size in bytes.

    The size is -1 if a server does not tell it. `ranged` is whether any part of it can be asked for.
    """

    path: str
    name: str
    size: int
    ranged: bool = True

    @property
    def remote(self) -> bool:
        """Whether it is reached by URL."""
        return is_url(self.path)

    @property
    def suffix(self) -> str:
        """What its name ends with, in lower case: compare it by `endswith`."""
        return url_suffix(self.path) if self.remote else self.path.lower()

    @property
    def seekable(self) -> bool:
        """Whether a row can be read without what comes before it."""
        return self.ranged and not self.suffix.endswith((".gz", ".zst"))

    def open(self) -> BinaryIO:
        """The file, open for reading.

        Raises:
            OSError: if a local one cannot be opened.
            SourceError: if one behind a URL cannot be reached.
        """
        return open_url(self.path, self.ranged) if self.remote else open(self.path, "rb")


def find_files(patterns: Iterable[str]) -> list[SourceFile]:
    """The files that paths, URLs and patterns name: in the order given, what matches one sorted.

    A file named twice is read once, where it was named first.

    Raises:
        SourceError: if a pattern matches nothing, or what it matches is no readable file.
    """
    files: dict[str, SourceFile] = {}
    for pattern in patterns:
        for file in expand(pattern):
            files.setdefault(identity(file), file)
    if not files:
        raise SourceError("no source file was given: set source.path to a .jsonl file")
    return list(files.values())


def expand(pattern: str) -> list[SourceFile]:
    """The files that one path, URL or pattern names.

    Raises:
        SourceError: if it matches nothing, or what it matches is no readable file.
    """
    if is_url(pattern):
        return [SourceFile(url, url, size, seekable) for url, size, seekable in find_urls(pattern)]
    return [local_file(name) for name in matches(pattern)]


def local_file(name: str) -> SourceFile:
    """A file of this machine.

    Raises:
        SourceError: if it is no regular file, or cannot be read.
    """
    check_name(name)
    return SourceFile(os.path.abspath(name), name, _readable_size(name))


def check_name(name: str) -> None:
    """Refuse a name that is not UTF-8, which no row or message could repeat.

    Raises:
        SourceError: if it is not.
    """
    if escaped(name) != name:
        raise SourceError(f"the name of {escaped(name)} is not UTF-8: rename it, or link to it")


def identity(file: SourceFile) -> str:
    """What two names of the same file have in common."""
    return file.path if file.remote else os.path.realpath(file.path)


@contextmanager
def reading(file: SourceFile) -> Generator[None]:
    """What goes wrong with a file while it is read, as an error that names it."""
    try:
        yield
    except SourceError:
        raise
    except OSError as error:
        raise SourceError(f"{file.name} cannot be read any more: {error.strerror or error}") from error
    except Exception as error:
        if not file.remote:
            raise
        raise SourceError(f"{file.name} cannot be read any more: {said(error)}") from error


def matches(pattern: str) -> list[str]:
    """The names that a path or pattern of this machine stands for; of a pattern, files only.

    Raises:
        SourceError: if there are none.
    """
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
        with open(name, "rb", opener=_at_once) as file:
            status = os.fstat(file.fileno())
    except IsADirectoryError as error:
        raise SourceError(f"{name} is a directory: name its files, as in {Path(name) / '*.jsonl'}") from error
    except OSError as error:
        raise SourceError(f"{name} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise SourceError(f"{name} is not a regular file; rows may be read again, so save it to one first")
    return status.st_size


def _at_once(name: str, flags: int) -> int:
    """Open even what is no file without waiting, as a pipe would have it until somebody writes to it."""
    return os.open(name, flags | os.O_NONBLOCK)


def _nearest(missing: Path) -> str:
    """A sentence on what there is instead, at the first part of the path that does not exist."""
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
