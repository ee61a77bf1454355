"""The run directory: one run, one directory, claimed by one process at a time, for one session after another.

The claim is an exclusive `flock` on `run.lock`, so it ends with the process, however that ends. A directory
that is not empty is Peerloom's only if it has a `run.lock`, and only files with Peerloom's names are ever
removed from it: nothing is, if there are others.
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
    CONTROL,
    DATA,
    FOLDERS,
    INDEX,
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


class RunDir:
    """A claimed run directory, with its folders. Made by `claim`.

    As a context manager it releases the directory; if the block fails before a task could begin, it removes
    the directory that `claim` has made, unless a service has left a log there.

    Attributes:
        path: the directory, absolute.
        state: what the last session left; None if there was none, or its run was removed.
        begun: whether tasks could begin.
        last_session: its number, 0 if there was none; no later one has it again, even of another run.
    """

    path: Path
    state: State | None
    last_session: int

    def __init__(self, path: Path, lock: int, last_session: int = 0, made: Sequence[Path] = ()) -> None:
        self.path = path
        self._made = made
        self.begun = False
        self.state = read_state(path)
        self.last_session = last_session if self.state is None else self.state.session
        self._lock = lock
        self._log = _open_log(path)
        self._released = False

    @classmethod
    def claim(cls, path: str | os.PathLike[str], *, fresh: bool = False) -> "RunDir":
        """Make a directory ready for a session, and keep other processes out of it.

        Args:
            path: the directory; made if it is not there.
            fresh: remove an earlier run from it first.

        Raises:
            RunDirError: if another process has it, it would have to be cleared but holds files that are not
                Peerloom's, it holds a run whose state is missing or cannot be read (and `fresh` is False), or
                it cannot be written.
        """
        directory = _absolute(path)
        try:
            made = [each for each in (directory, *directory.parents) if not each.exists()]
            directory.mkdir(parents=True, exist_ok=True)
            _refuse_no_run(directory)
            lock = _lock(directory)
            last_session = 0
            try:
                if fresh:
                    last_session = _last_session(directory)
                    clear(directory)
                elif read_state(directory) is None:
                    refuse_foreign(directory)
                    _refuse_run_without_state(directory)
                    clear(directory)
                for folder in FOLDERS:
                    (directory / folder).mkdir(exist_ok=True)
                sync_folder(directory)
                return cls(directory, lock, last_session, made)
            except BaseException:
                os.close(lock)
                raise
        except OSError as error:
            raise _unusable(directory, error) from error

    @classmethod
    def peek(cls, path: str | os.PathLike[str], *, fresh: bool = False) -> "RunDir":
        """What `claim` would find, for a session that is not begun: nothing is locked, made or written.

        Raises:
            RunDirError: as `claim` would.
        """
        seen = cls.__new__(cls)
        seen.path = directory = _absolute(path)
        seen.state, seen.last_session, seen._released = None, 0, True
        try:
            if not directory.is_dir():
                _refuse_unwritable(directory)
                return seen
            _refuse_no_run(directory)
            if in_use(directory):
                raise _in_use(directory)
            if fresh:
                seen.last_session = _last_session(directory)
                refuse_foreign(directory)
                return seen
            seen.state = read_state(directory)
            if seen.state is None:
                refuse_foreign(directory)
                _refuse_run_without_state(directory)
            else:
                seen.last_session = seen.state.session
        except OSError as error:
            raise _unusable(directory, error) from error
        return seen

    @property
    def logs(self) -> Path:
        """Where services put their own logs: files ending in `.log` or `.jsonl`."""
        return self.path / LOGS

    @property
    def has_work(self) -> bool:
        """Whether there are rows here, or turns and calls of unfinished ones, as far as files tell."""
        return bool(_work(self.path))

    def clear(self) -> None:
        """Remove what earlier sessions left; who still writes for them is locked out.

        Raises:
            RunDirError: if something cannot be removed, or is not Peerloom's.
        """
        try:
            clear(self.path)
        except OSError as error:
            raise RunDirError(f"{error.filename} cannot be removed: {error.strerror}") from error
        self.state = None
        os.close(self._log)
        self._log = _open_log(self.path)

    def read_summary(self) -> dict[str, Any] | None:
        """The content of `summary.json`; None if there is none that can be read."""
        try:
            return orjson.loads((self.path / SUMMARY).read_bytes())
        except (OSError, orjson.JSONDecodeError):
            return None

    def write_state(self, state: State) -> None:
        """Write `state.json`, whole or not at all; it is durable when this returns.

        Raises:
            SinkError: if it could not be written; the old one is still there.
        """
        write_atomically(self.path / STATE, _json(msgspec.to_builtins(state)))
        self.state = state

    def write_yaml(self, text: str) -> None:
        """Write `run.yaml`, the resolved configuration, whole or not at all.

        Raises:
            SinkError: if it could not be written.
        """
        write_atomically(self.path / RUN_YAML, text.encode())

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write `summary.json`, whole or not at all.

        Raises:
            SinkError: if it could not be written.
        """
        write_atomically(self.path / SUMMARY, _json(summary))

    def write_control(self, content: bytes) -> None:
        """Write `control.json`, which only this user may read, whole or not at all.

        Raises:
            SinkError: if it could not be written.
        """
        write_atomically(self.path / CONTROL, content, mode=0o600)

    def remove_control(self) -> None:
        """Remove `control.json`; no harm if it is not there."""
        (self.path / CONTROL).unlink(missing_ok=True)

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
        if error is not None and self._made and not self.begun:
            with contextlib.suppress(OSError, RunDirError):  # a file of somebody else's, say: all is left
                self._remove_unused()
        self.release()

    def _remove_unused(self) -> None:
        if not self._is_unused():
            return
        clear(self.path)
        for folder in FOLDERS:
            (self.path / folder).rmdir()
        (self.path / RUN_LOCK).unlink()
        for each in self._made:
            each.rmdir()

    def _is_unused(self) -> bool:
        """Whether there is nothing to go on with here, and nothing that tells why."""
        return not self.has_work and not any(each.stat().st_size for each in self.logs.iterdir())

    def release(self) -> None:
        """Let other processes claim the directory."""
        if not self._released:
            self._released = True
            os.close(self._log)
            os.close(self._lock)


def _absolute(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path; refuse one that is not UTF-8, which no row or log could name."""
    directory = Path(path).expanduser().absolute()
    if escaped(str(directory)) != str(directory):
        raise RunDirError(f"{escaped(str(directory))} is not UTF-8: {ANOTHER}")
    return directory


def _lock(directory: Path) -> int:
    """The descriptor that holds the claim."""
    path = directory / RUN_LOCK
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        _lock_within(lock, CLAIM_SECONDS)
        if not os.path.samestat(os.fstat(lock), os.stat(path)):  # removed by who had it until now
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
    holder = ""
    with contextlib.suppress(OSError):
        holder = (directory / RUN_LOCK).read_text("ascii", "replace").strip()
    holder = holder or "unknown"
    return RunDirError(f"{directory} is in use by another run (process {holder}): wait for it, or {ANOTHER}")


def _unusable(directory: Path, error: OSError) -> RunDirError:
    why = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
    return RunDirError(f"{error.filename or directory} cannot be used for a run: {why}: {ANOTHER}")


def _refuse_unwritable(directory: Path) -> None:
    """Refuse a directory that is not there and could not be made."""
    above = next(each for each in (directory, *directory.parents) if each.exists())
    if not above.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(above))
    if not os.access(above, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(above))


def _lock_within(lock: int, seconds: float) -> None:
    """Take an exclusive lock, also if somebody has it for an instant, as `in_use` does."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.01)


def in_use(directory: Path) -> bool:
    """Whether some process has claimed a run directory."""
    try:
        lock = os.open(directory / RUN_LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # given back at once
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _refuse_no_run(directory: Path) -> None:
    names = sorted(entry.name for entry in directory.iterdir() if not is_leftover(entry))
    if names and RUN_LOCK not in names:
        raise RunDirError(
            f"{directory} is not empty and holds no run of Peerloom (it has {', '.join(names[:5])}): "
            f"{ANOTHER}"
        )


def _refuse_run_without_state(directory: Path) -> None:
    """A directory whose run got no further than its log is free."""
    found = [name for name in (RUN_YAML, SUMMARY) if (directory / name).exists()]
    found += _work(directory)
    if found:
        raise RunDirError(
            f"{directory} holds a run ({', '.join(found)}) without {STATE}, as early versions left it: "
            f"it cannot be resumed. Replace it with --fresh (fresh=True in Python), or {ANOTHER}"
        )


def _work(directory: Path) -> list[str]:
    """The folders that hold what sessions have done."""
    found = [folder for folder in (DATA, REJECTED, INDEX) if list_parts(directory, folder)]
    return [*found, JOURNAL] if list_segments(directory) else found


def _last_session(directory: Path) -> int:
    try:
        state = read_state(directory)
    except RunDirError:  # whoever begins anew need not be able to read it
        return 0
    return 0 if state is None else state.session


def _json(value: dict[str, Any]) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _open_log(directory: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(directory / LOG, flags, 0o644)
