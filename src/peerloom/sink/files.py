"""Files that only grow, and how they come to be on disk."""

import errno
import os
from pathlib import Path

from peerloom.sink.errors import DiskFull, SinkError

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


class GrowingFile:
    """A new file that is written at its end, and can be cut back to where it was last known to be good.

    Raises:
        DiskFull: if there is no room for it.
        SinkError: if it cannot be made, or is there already.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.end = 0
        self._good = 0
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise write_failed(path, error) from error

    def append(self, data: bytes) -> None:
        """Write at the end.

        Raises:
            DiskFull: if there is no room; `cut_back` undoes what was written.
            SinkError: if writing failed otherwise.
        """
        left = memoryview(data)
        try:
            while left:
                written = os.pwrite(self._fd, left, self.end)
                self.end += written
                left = left[written:]
        except OSError as error:
            raise write_failed(self.path, error) from error

    def sync(self) -> None:
        """Make what was appended durable.

        Raises:
            SinkError: if that failed. It must not be tried again on this file: the kernel reports a
                failed write-back once, and then calls the lost pages clean.
        """
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise _sync_failed(self.path, error) from error

    def keep(self) -> None:
        """What is there now is good."""
        self._good = self.end

    def cut_back(self) -> None:
        """Drop what was appended since the last `keep`.

        Raises:
            SinkError: if that failed.
        """
        try:
            os.ftruncate(self._fd, self._good)
        except OSError as error:
            raise SinkError(f"{self.path} could not be cut back: {error.strerror}") from error
        self.end = self._good

    def close(self) -> None:
        """Close the file; it stays as it is."""
        os.close(self._fd)


def write_whole(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Put a file in the place of another one, or none: at every instant the old or the new one is there.

    Raises:
        DiskFull: if there is no room; the old one is still there.
        SinkError: if it could not be written, or made durable.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # it would keep its own mode
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise write_failed(path, error) from error
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable.

    Raises:
        SinkError: if that failed.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        raise _sync_failed(path, error) from error
    finally:
        os.close(fd)


def size_of(path: Path) -> int:
    """The size of a file in bytes, 0 if there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def write_failed(path: Path, error: OSError) -> SinkError:
    """The error to raise for a file that could not be written."""
    if error.errno in _NO_ROOM:
        return DiskFull(f"no room left to write {path}: {error.strerror}. Make room there.")
    return SinkError(f"{path} could not be written: {error.strerror}")


def _sync_failed(path: Path, error: OSError) -> SinkError:
    return SinkError(
        f"{path} could not be made durable: {error.strerror}. What was written last may be lost, "
        "so the shard has to be taken over"
    )
