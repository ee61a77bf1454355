"""Write files durably: append to a file, replace a file atomically, and sync a folder."""

import errno
import os
from pathlib import Path

from peerloom.sink.errors import DiskFull, SinkError
from peerloom.sink.layout import temporary

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


class AppendFile:
    """A new file that is only appended to, and can be rolled back to its last checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.end = 0
        self._checkpoint = 0
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise write_failed(path, error) from error

    def append(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            DiskFull: if there is no room; `roll_back` removes a partial write.
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
        """Make the appended bytes durable.

        Raises:
            SinkError: if that failed. It must not be tried again on this file: the kernel reports a
                failed write-back once, and then marks the lost pages as clean.
        """
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise _sync_failed(self.path, error) from error

    def checkpoint(self) -> None:
        """Mark the current content as good."""
        self._checkpoint = self.end

    def roll_back(self) -> None:
        """Remove the bytes appended since the last `checkpoint`."""
        try:
            os.ftruncate(self._fd, self._checkpoint)
        except OSError as error:
            raise SinkError(f"{self.path} could not be cut back: {error.strerror}") from error
        self.end = self._checkpoint

    def close(self) -> None:
        """Close the file without changing it."""
        os.close(self._fd)


def write_atomically(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Create or replace a file durably; at every moment the name refers to the old file or the new one."""
    scratch = temporary(path)
    try:
        scratch.unlink(missing_ok=True)  # an existing file would keep its old mode
        with open(scratch, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        scratch.rename(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise write_failed(path, error) from error
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the entries of a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        raise _sync_failed(path, error) from error
    finally:
        os.close(fd)


def size_of(path: Path) -> int:
    """Return the size of a file in bytes, 0 if it does not exist."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def write_failed(path: Path, error: OSError) -> SinkError:
    """Return the error to raise for a file that could not be written."""
    if error.errno in _NO_ROOM:
        return DiskFull(f"no room left to write {path}: {error.strerror}. Make room there.")
    return SinkError(f"{path} could not be written: {error.strerror}")


def _sync_failed(path: Path, error: OSError) -> SinkError:
    return SinkError(
        f"{path} could not be made durable: {error.strerror}. The last writes may be lost, "
        "so the shard has to be taken over"
    )
