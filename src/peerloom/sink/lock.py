"""Who may write a shard's parts: the incarnation whose number is in the shard's lock file.

Writers never hold the lock, so one that was stopped in the middle of a write cannot stand in the way. They
read the number *after* each thing they make others see (a new file, an index record). A taker writes its
number *before* it looks at the files. So whenever a writer still finds its own number, the taker will see
what it did; otherwise the writer learns that its work goes nowhere. Takers hold an exclusive `flock`
among themselves.
"""

import fcntl
import os
from pathlib import Path

from peerloom.sink.errors import ShardLost

_LONGEST = 20
_REVOKED = "revoked"


class ShardLock:
    """The lock file of one shard, in the hands of one incarnation. Takes it; may wait for another taker.

    Raises:
        ShardLost: if this incarnation, or a later one, has taken the shard before.
    """

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

    def taken(self) -> None:
        """The take-over is done: let other takers in."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def check(self) -> None:
        """Make sure that nobody has taken the shard since.

        Raises:
            ShardLost: if somebody has.
        """
        owner = self._owner()
        if owner != str(self._incarnation):
            raise self._lost(owner)

    def close(self) -> None:
        """Close the file; the number stays."""
        os.close(self._fd)

    def _owner(self) -> str:
        return os.pread(self._fd, _LONGEST, 0).decode("ascii", "replace").strip("\0 \n")

    def _lost(self, owner: str) -> ShardLost:
        by = "the run directory was cleared" if owner == _REVOKED else f"taken by incarnation {owner}"
        return ShardLost(f"{self._path.name}: incarnation {self._incarnation} may not write it: {by}")


def revoke(path: Path) -> None:
    """Tell whoever still writes the shard that it is lost, for good, before its lock file is removed."""
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _write(fd, _REVOKED)
    finally:
        os.close(fd)


def _write(fd: int, owner: str) -> None:
    os.pwrite(fd, owner.ljust(_LONGEST - 1).encode() + b"\n", 0)
