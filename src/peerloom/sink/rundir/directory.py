"""Claim a run directory for one session, and read and write its files.

One process at a time claims the directory of a run, one session after another. The claim is an exclusive
`flock` on `.peerloom/run.lock`, so it ends with the process, even after a crash. A directory that is not
empty is accepted only if it has a folder `.peerloom`. Only files with Peerloom's names are ever removed, and
none if there are other files.
"""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import orjson

from peerloom.errors import RunDirError
from peerloom.sink.files import sync_folder, write_atomically
from peerloom.sink.layout import (
    DATA,
    FOLDERS,
    INDEX,
    INTERNAL,
    JOURNAL,
    LOG,
    LOGS,
    REJECTED,
    RUN_LOCK,
    RUN_YAML,
    STATE,
    SUMMARY,
    list_parts,
    list_segments,
)
from peerloom.sink.rundir.clearing import ANOTHER, clear, is_leftover, refuse_foreign
from peerloom.sink.rundir.state import State, read_state
from peerloom.values import escaped

CLAIM_SECONDS = 0.2
_JSON = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE


class RunDir:
    """A claimed run directory with its folders. Create it with `claim`.

    As a context manager it releases the directory; if the block fails before a task could begin, it removes
    the directory that `claim` has created, unless a service has left a log there.

    Attributes:
        path: the directory, absolute.
        state: the state that the last session wrote; None if there was none, or its run was removed.
        begun: whether tasks could begin.
        last_session: the number of the last session, 0 if there was none; no later session reuses it, even of
            another run in the directory.
    """

    def __init__(
        self, path: Path, lock: int | None, last: tuple[State | None, int], created: Sequence[Path] = ()
    ) -> None:
        self.path = path
        self.begun = False
        self.state, self.last_session = last
        self._created = created
        self._lock = lock
        self._log = -1 if lock is None else _open_log(path)

    @classmethod
    def claim(cls, path: str | os.PathLike[str], *, fresh: bool = False) -> "RunDir":
        """Claim a directory for a session, and prepare it; with `fresh`, remove an earlier run from it.

        Raises:
            RunDirError: if another process has claimed it, it would have to be cleared but holds files that
                are not Peerloom's, it holds a run whose state is missing or cannot be read (and `fresh` is
                False), or it cannot be written.
        """
        directory = _absolute(path)
        try:
            created = [each for each in (directory, *directory.parents) if not each.exists()]
            directory.mkdir(parents=True, exist_ok=True)
            _refuse_no_run(directory)
            (directory / INTERNAL).mkdir(exist_ok=True)
            lock = _take_lock(directory)
            try:
                last = _last_session(directory, fresh=fresh)
                if last[0] is None:
                    clear(directory)
                for folder in FOLDERS:
                    (directory / folder).mkdir(exist_ok=True)
                sync_folder(directory)
                return cls(directory, lock, last, created)
            except BaseException:
                os.close(lock)
                raise
        except OSError as error:
            raise _unusable(directory, error) from error

    @classmethod
    def peek(cls, path: str | os.PathLike[str], *, fresh: bool = False) -> "RunDir":
        """Return a view of the directory as `claim` would, without locking, creating or writing anything."""
        directory = _absolute(path)
        try:
            if not directory.is_dir():
                _refuse_unwritable(directory)
                return cls(directory, None, (None, 0))
            _refuse_no_run(directory)
            if in_use(directory):
                raise _in_use(directory)
            return cls(directory, None, _last_session(directory, fresh=fresh))
        except OSError as error:
            raise _unusable(directory, error) from error

    @property
    def has_work(self) -> bool:
        """Whether the directory has files of rows, or of turns and calls of unfinished tasks."""
        return bool(_work(self.path))

    def clear(self) -> None:
        """Remove the files of earlier sessions, and lock out processes that still write for them.

        Raises:
            RunDirError: if a file cannot be removed, or is not one of Peerloom's.
        """
        try:
            clear(self.path)
        except OSError as error:
            raise RunDirError(f"{error.filename} cannot be removed: {error.strerror}") from error
        self.state = None
        os.close(self._log)
        self._log = _open_log(self.path)

    def write(self, name: str, content: str | dict[str, Any], mode: int = 0o644) -> None:
        """Write a file atomically and durably, an object as JSON."""
        data = content.encode() if isinstance(content, str) else orjson.dumps(content, option=_JSON)
        write_atomically(self.path / name, data, mode)

    def write_state(self, state: State) -> None:
        """Write the state like `write`, and keep it as `state`."""
        self.write(STATE, msgspec.to_builtins(state))
        self.state = state

    def log(self, level: str, event: str, **fields: Any) -> None:
        """Append a line to `log.jsonl`. `level` is `info`, `warning` or `error`.

        A line that cannot be written is dropped: a full disk must not end a run because of its log.
        """
        entry = {"time": round(time.time(), 3), "level": level, "event": event, **fields}
        try:
            os.write(self._log, orjson.dumps(entry, default=str, option=orjson.OPT_APPEND_NEWLINE))
        except OSError:
            return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._created and not self.begun:
            with contextlib.suppress(OSError, RunDirError):  # e.g. for a foreign file: nothing is removed
                self._remove_unused()
        self.release()

    def _remove_unused(self) -> None:
        if not self._is_unused():
            return
        clear(self.path)
        internal, *others = FOLDERS
        for folder in others:
            (self.path / folder).rmdir()
        (self.path / RUN_LOCK).unlink()
        (self.path / internal).rmdir()
        for each in self._created:
            each.rmdir()

    def _is_unused(self) -> bool:
        """Return whether there is no work to resume, and no log that explains the failure."""
        return not self.has_work and not any(each.stat().st_size for each in (self.path / LOGS).iterdir())

    def release(self) -> None:
        """Let other processes claim the directory."""
        if self._lock is not None:
            os.close(self._log)
            os.close(self._lock)
            self._lock = None


def _absolute(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path; refuse one that is not UTF-8, which no row or log could contain."""
    directory = Path(path).expanduser().absolute()
    if escaped(str(directory)) != str(directory):
        raise RunDirError(f"{escaped(str(directory))} is not UTF-8: {ANOTHER}")
    return directory


def _take_lock(directory: Path) -> int:
    """Return a file descriptor that holds the claim."""
    path = directory / RUN_LOCK
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        _lock_within(lock, CLAIM_SECONDS)
        if not os.path.samestat(os.fstat(lock), os.stat(path)):  # removed by the process that held it
            raise BlockingIOError
    except OSError as error:
        os.close(lock)
        if not isinstance(error, BlockingIOError | FileNotFoundError):
            raise
        raise _in_use(directory) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _in_use(directory: Path) -> RunDirError:
    pid = ""
    with contextlib.suppress(OSError):
        pid = (directory / RUN_LOCK).read_text("ascii", "replace").strip()
    pid = pid or "unknown"
    return RunDirError(f"{directory} is in use by another run (process {pid}): wait for it, or {ANOTHER}")


def _unusable(directory: Path, error: OSError) -> RunDirError:
    reason = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
    return RunDirError(f"{error.filename or directory} cannot be used for a run: {reason}: {ANOTHER}")


def _refuse_unwritable(directory: Path) -> None:
    """Refuse a directory that does not exist and could not be created."""
    parent = next(each for each in (directory, *directory.parents) if each.exists())
    if not parent.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(parent))
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(parent))


def _lock_within(lock: int, seconds: float) -> None:
    """Take an exclusive lock; wait a little if a process has it for a moment, as `in_use` does."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.01)


def in_use(directory: Path) -> bool:
    """Return whether some process has claimed a run directory."""
    try:
        lock = os.open(directory / RUN_LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # released by the close below
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _refuse_no_run(directory: Path) -> None:
    names = sorted(entry.name for entry in directory.iterdir() if not is_leftover(entry))
    if Path(RUN_LOCK).name in names:
        raise RunDirError(
            f"{directory} holds a run of an earlier release of Peerloom, which this one cannot read: "
            f"use the release that started it, or {ANOTHER}"
        )
    if names and INTERNAL not in names:
        raise RunDirError(
            f"{directory} is not empty and contains no run of Peerloom (it has {', '.join(names[:5])}): "
            f"{ANOTHER}"
        )


def _refuse_run_without_state(directory: Path) -> None:
    """Refuse a directory with a run that has no state; a run that only wrote a log does not count."""
    found = [name for name in (RUN_YAML, SUMMARY) if (directory / name).exists()]
    found += _work(directory)
    if found:
        raise RunDirError(
            f"{directory} holds a run ({', '.join(found)}) without {STATE}, so "
            f"it cannot be resumed. Replace it with --fresh (fresh=True in Python), or {ANOTHER}"
        )


def _work(directory: Path) -> list[str]:
    """Return the folders that hold the work of sessions."""
    found = [folder for folder in (DATA, REJECTED, INDEX) if list_parts(directory, folder)]
    return [*found, JOURNAL] if list_segments(directory) else found


def _last_session(directory: Path, *, fresh: bool) -> tuple[State | None, int]:
    """Return the state of the run to resume, None if there is none, and the number of the last session."""
    if fresh:
        refuse_foreign(directory)
        with contextlib.suppress(RunDirError):  # a fresh start does not need the state
            state = read_state(directory)
            return None, 0 if state is None else state.session
        return None, 0
    state = read_state(directory)
    if state is not None:
        return state, state.session
    refuse_foreign(directory)
    _refuse_run_without_state(directory)
    return None, 0


def _open_log(directory: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(directory / LOG, flags, 0o644)
