"""Lock a shard: only the incarnation whose number is in the shard's lock file may write its parts.

Writers never hold the lock, so a writer that was suspended in the middle of a write cannot block a take-over.
A writer reads the number *after* each visible step (a new file, an index record). A new owner writes its
number *before* it reads the files. So if a writer still finds its own number, the new owner will see that
step; otherwise the writer learns that its work is lost. New owners exclude each other by an exclusive
`flock`.
"""

import fcntl
import os
from pathlib import Path

from peerloom.sink.errors import ShardLost

_LENGTH = 20
_REVOKED = "revoked"


class ShardLock:
    """The lock file of one shard, taken by one incarnation. May wait for another take-over to end."""

    def __init__(self, path: Path, incarnation: int) -> None:
        self._path = path
        self._incarnation = incarnation
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            owner = self._owner()
            if owner and not (owner.isdigit() and int(owner) < incarnation):
                raise self._lost(owner)
            _write(self._fd, str(incarnation))
        except BaseException:
            os.close(self._fd)
            raise

    def end_takeover(self) -> None:
        """Release the `flock`, so that a later incarnation can take the shard."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def check(self) -> None:
        """Check that this incarnation still owns the shard."""
        owner = self._owner()
        if owner != str(self._incarnation):
            raise self._lost(owner)

    def close(self) -> None:
        """Close the file without changing the number in it."""
        os.close(self._fd)

    def _owner(self) -> str:
        return os.pread(self._fd, _LENGTH, 0).decode("ascii", "replace").strip("\0 \n")

    def _lost(self, owner: str) -> ShardLost:
        by = "the run directory was cleared" if owner == _REVOKED else f"taken by incarnation {owner}"
        return ShardLost(f"{self._path.name}: incarnation {self._incarnation} may not write it: {by}")


def revoke(path: Path) -> None:
    """Revoke a shard for good from the process that may still write it, before its lock file is removed."""
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _write(fd, _REVOKED)
    finally:
        os.close(fd)


def _write(fd: int, owner: str) -> None:
    os.pwrite(fd, owner.ljust(_LENGTH - 1).encode() + b"\n", 0)
