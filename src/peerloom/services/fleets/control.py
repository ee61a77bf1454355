"""Start and end supervisors from another process, by signals and the directory; all functions block."""

import asyncio
import contextlib
import os
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from peerloom.errors import ServiceError
from peerloom.services.fleets.adapters import remove_adapters
from peerloom.services.fleets.directory import SUPERVISOR_MARK, Entry, NoFleet, is_running, read
from peerloom.services.fleets.supervisor import in_use
from peerloom.services.processes.orphans import end_marked
from peerloom.services.processes.server import failure_in_log
from peerloom.services.processes.spawn import tail

POLL_SECONDS = 0.05
GRACE_SECONDS = 60.0
"""The time a supervisor has to stop its servers, before it and they are killed."""

REPORT_SECONDS = 1.0


def log_dir_of(path: Path) -> Path:
    """Return the directory of a fleet's logs, which is emptied when the fleet is started again."""
    return path.parent / "logs" / path.stem


def launch(
    path: Path, argv: Sequence[str], spec: bytes, timeout: float, report: Callable[[str], None]
) -> Entry:
    """Start a supervisor, wait until its fleet is up, and return the fleet's entry.

    Args:
        path: the fleet's file.
        argv: the supervisor's program and arguments.
        spec: the supervisor's standard input.
        timeout: the limit in seconds, after which the supervisor is ended.
        report: called every second with a line on the progress.

    Raises:
        ServiceError: if the name is in use, or the fleet does not start; the text has the end of its log.
    """
    with contextlib.suppress(NoFleet):
        before = read(path)
        if before.life in ("alive", "none"):
            raise in_use(path)
        _end_servers(before)
    logs = log_dir_of(path)
    log = logs / "supervisor.log"
    remove_adapters(path)
    try:
        shutil.rmtree(logs, ignore_errors=True)
        logs.mkdir(parents=True)
        pid = _start_detached(argv, spec, log)
    except OSError as error:
        raise ServiceError(f"no supervisor could be started for fleet {path.stem}: {error}") from error
    try:
        return _wait(path, pid, log, timeout, report)
    except BaseException:
        _stop(pid)
        with contextlib.suppress(ServiceError):
            _end_servers(read(path))
        raise


def _start_detached(argv: Sequence[str], stdin: bytes, log: Path) -> int:
    """Start a program in a new session, with its output in `log`, and return its process id."""
    reader, writer = os.pipe()
    try:
        os.write(writer, stdin)  # less than a pipe holds
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        actions = [
            (os.POSIX_SPAWN_DUP2, reader, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        return os.posix_spawn(argv[0], list(argv), os.environ, file_actions=actions, setsid=True)
    finally:
        os.close(reader)
        os.close(writer)


def end(path: Path) -> bool:
    """End a fleet and remove it from the directory; return whether its supervisor did both itself.

    Raises:
        NoFleet: if there is no such fleet.
        ServiceError: if the fleet has no supervisor, or its supervisor runs on another machine.
    """
    entry = read(path)
    if entry.supervisor is None:
        raise ServiceError(
            f"fleet {path.stem} was not started by `peerloom serve up`: remove {path} yourself"
        )
    life = entry.life
    if life == "alive" and entry.supervisor.host != socket.gethostname():
        raise ServiceError(
            f"the supervisor of fleet {path.stem} runs on {entry.supervisor.host}: "
            f"`peerloom serve down {path.stem}` has to be called there"
        )
    by_itself = life == "alive" and _stop(entry.supervisor.pid) and not path.exists()
    _end_servers(entry)
    remove_adapters(path)
    path.unlink(missing_ok=True)
    return by_itself


def _end_servers(entry: Entry) -> None:
    """Wait until an ended supervisor's servers on this machine have ended, and kill those left."""
    if entry.supervisor is not None and entry.supervisor.host == socket.gethostname():
        asyncio.run(end_marked(SUPERVISOR_MARK, entry.supervisor.mark))


def _wait(path: Path, pid: int, log: Path, timeout: float, report: Callable[[str], None]) -> Entry:
    deadline, reported, written = time.monotonic() + timeout, 0.0, False
    while True:
        entry = None
        ended = not is_running(pid)  # checked before reading, so that the last write is seen
        with contextlib.suppress(NoFleet):
            entry = read(path)
        if entry is not None and entry.supervisor is not None and entry.supervisor.pid == pid:
            written = True
            if entry.state == "up":
                return entry
            if entry.state == "failed":
                raise ServiceError(f"fleet {path.stem} did not come up: {entry.detail}")
        if ended and written and entry is None:
            raise ServiceError(f"fleet {path.stem} was taken down before it was up")
        if ended:
            raise ServiceError(
                f"the supervisor of fleet {path.stem} has ended. {failure_in_log(str(log), tail(log))}"
            )
        if time.monotonic() - reported > REPORT_SECONDS:
            reported = time.monotonic()
            report(_progress(entry, log))
        if time.monotonic() > deadline:
            newest = _newest(log)
            raise ServiceError(
                f"fleet {path.stem} was not up after {timeout:g} s (--timeout). "
                + failure_in_log(str(newest), tail(newest))
            )
        time.sleep(POLL_SECONDS)


def _stop(pid: int) -> bool:
    """End a supervisor, and return whether it ended without being killed."""
    try:
        process = psutil.Process(pid)
        process.terminate()
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(GRACE_SECONDS)
            return True
        process.kill()
        process.wait(GRACE_SECONDS)
    except (psutil.NoSuchProcess, psutil.TimeoutExpired):
        pass
    return False


def _progress(entry: Entry | None, log: Path) -> str:
    """Return the number of servers that are up and the last line of the newest log, or why it waits."""
    states = [endpoint.state for endpoint in entry.endpoints] if entry is not None else []
    if entry is not None and entry.detail and not states:
        return f"starting; {entry.detail.splitlines()[0]}"
    newest = _newest(log)
    lines = tail(newest).rstrip().splitlines()
    last = f"; {newest.name}: {lines[-1].strip()}" if lines else ""
    return f"{states.count('up')} of {len(states)} servers up{last}" if states else f"starting{last}"


def _newest(log: Path) -> Path:
    """Return the most recently written log of the fleet; `log` if there is none."""
    return max(log.parent.glob("*.log"), key=lambda file: file.stat().st_mtime, default=log)
