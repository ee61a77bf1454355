"""From what the user wrote (paths, glob patterns) to files that can be read, or a located refusal."""

import glob
import os
import stat
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from peerloom.errors import SourceError


class SourceFile(NamedTuple):
    """One input file: its absolute path, the name the user knows it by, and its size in bytes."""

    path: str
    name: str
    size: int

    @property
    def seekable(self) -> bool:
        """Whether a row can be read without what comes before it."""
        return not self.path.endswith((".gz", ".zst"))


def find_files(patterns: Iterable[str]) -> list[SourceFile]:
    """The files that paths and glob patterns name: patterns in the order given, matches sorted.

    A file named twice is read once, where it was named first.

    Raises:
        SourceError: if a pattern matches nothing, or what it matches is no readable file.
    """
    files: dict[str, SourceFile] = {}
    for pattern in patterns:
        for name in _matches(pattern):
            real = os.path.realpath(name)
            if real not in files:
                files[real] = SourceFile(os.path.abspath(name), name, _readable_size(name))
    if not files:
        raise SourceError("no source file was given: set source.path to a .jsonl file")
    return list(files.values())


def _matches(pattern: str) -> list[str]:
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
        with open(name, "rb") as file:
            status = os.fstat(file.fileno())
    except IsADirectoryError as error:
        raise SourceError(f"{name} is a directory: name its files, as in {Path(name) / '*.jsonl'}") from error
    except OSError as error:
        raise SourceError(f"{name} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise SourceError(f"{name} is not a regular file; rows may be read again, so save it to one first")
    return status.st_size


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
