"""Start and end keepers from another process, by signals and the directory; all functions block."""

import asyncio
import contextlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from peerloom.errors import ServiceError
from peerloom.services.fleets import daemon
from peerloom.services.fleets.adapters import remove_adapters
from peerloom.services.fleets.directory import KEEPER_MARK, Entry, NoFleet, read
from peerloom.services.fleets.keeper import in_use
from peerloom.services.processes.orphans import end_marked
from peerloom.services.processes.server import failure_in_log
from peerloom.services.processes.spawn import tail

POLL_SECONDS = 0.05
GRACE_SECONDS = 60.0
"""The time a keeper has to stop its servers, before it and they are killed."""

REPORT_SECONDS = 1.0


def log_dir_of(path: Path) -> Path:
    """Return the directory of a fleet's logs, which is emptied when the fleet is started again."""
    return path.parent / "logs" / path.stem


def launch(
    path: Path, argv: Sequence[str], spec: bytes, timeout: float, report: Callable[[str], None]
) -> Entry:
    """Start a keeper, wait until its fleet is up, and return the fleet's entry.

    Args:
        path: the fleet's file.
        argv: the keeper's program and arguments.
        spec: the keeper's standard input.
        timeout: the limit in seconds, after which the keeper is ended.
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
    log = logs / "keeper.log"
    remove_adapters(path)
    try:
        shutil.rmtree(logs, ignore_errors=True)
        logs.mkdir(parents=True)
        command = [sys.executable, "-I", "-S", daemon.__file__, str(log), *argv]
        started = subprocess.run(command, input=spec, stdout=subprocess.PIPE, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ServiceError(f"no keeper could be started for fleet {path.stem}: {error}") from error
    pid = int(started.stdout)
    try:
        return _wait(path, pid, log, timeout, report)
    except BaseException:
        _stop(pid)
        with contextlib.suppress(ServiceError):
            _end_servers(read(path))
        raise


def end(path: Path) -> bool:
    """End a fleet and remove it from the directory; return whether its keeper did both itself.

    Raises:
        NoFleet: if there is no such fleet.
        ServiceError: if the fleet has no keeper, or its keeper runs on another machine.
    """
    entry = read(path)
    if entry.keeper is None:
        raise ServiceError(
            f"fleet {path.stem} was not started by `peerloom serve up`: remove {path} yourself"
        )
    life = entry.life
    if life == "alive" and entry.keeper.host != socket.gethostname():
        raise ServiceError(
            f"the keeper of fleet {path.stem} runs on {entry.keeper.host}: "
            f"`peerloom serve down {path.stem}` has to be called there"
        )
    by_itself = life == "alive" and _stop(entry.keeper.pid) and not path.exists()
    _end_servers(entry)
    remove_adapters(path)
    path.unlink(missing_ok=True)
    return by_itself


def _end_servers(entry: Entry) -> None:
    """Wait until an ended keeper's servers on this machine have ended, and kill those left."""
    if entry.keeper is not None and entry.keeper.host == socket.gethostname():
        asyncio.run(end_marked(KEEPER_MARK, entry.keeper.mark))


def _wait(path: Path, pid: int, log: Path, timeout: float, report: Callable[[str], None]) -> Entry:
    deadline, reported, written = time.monotonic() + timeout, 0.0, False
    while True:
        entry = None
        ended = not _is_running(pid)  # checked before reading, so that the last write is seen
        with contextlib.suppress(NoFleet):
            entry = read(path)
        if entry is not None and entry.keeper is not None and entry.keeper.pid == pid:
            written = True
            if entry.state == "up":
                return entry
            if entry.state == "failed":
                raise ServiceError(f"fleet {path.stem} did not come up: {entry.detail}")
        if ended and written and entry is None:
            raise ServiceError(f"fleet {path.stem} was taken down before it was up")
        if ended:
            raise ServiceError(
                f"the keeper of fleet {path.stem} has ended. {failure_in_log(str(log), tail(log))}"
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
    """End a keeper, and return whether it ended without being killed."""
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


def _is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _progress(entry: Entry | None, log: Path) -> str:
    """Return the number of servers that are up, and the last line of the newest log.

    While the fleet has no servers yet, return the reason why its keeper waits.
    """
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
