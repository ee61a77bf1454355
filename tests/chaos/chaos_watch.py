"""Seeing a run from outside: its members' processes, the lines in its parts, the entries of its log."""

import contextlib
import json
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil


@dataclass
class Member:
    """One member's process. `unheard`: since when nothing reaches it, if it is stopped or cut off."""

    name: str
    process: psutil.Process
    session: int
    seen: float
    unheard: float | None = None

    @property
    def kind(self) -> str:
        return self.name.partition("-")[0]


class RowCount:
    """Counts lines in parts, and reads each byte once."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._read: dict[Path, tuple[int, int]] = {}

    def count(self) -> int:
        there: dict[Path, tuple[int, int]] = {}
        for part in (*self._run_dir.glob("data/*.jsonl"), *self._run_dir.glob("rejected/*.jsonl")):
            offset, lines = self._read.get(part, (0, 0))
            with contextlib.suppress(FileNotFoundError), part.open("rb") as file:
                file.seek(offset)
                added = file.read()
                there[part] = offset + len(added), lines + added.count(b"\n")
        self._read = there
        return sum(lines for _, lines in there.values())


class LogTail:
    """New whole lines of a JSONL file since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def entries(self) -> Iterator[dict[str, Any]]:
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._offset)
            whole, newline, _ = file.read().rpartition(b"\n")
            self._offset += len(whole) + len(newline)
            for line in whole.splitlines():
                with contextlib.suppress(ValueError):  # a driver killed while it wrote
                    yield json.loads(line)


def alive(process: psutil.Process) -> bool:
    """Whether a process still runs; one that is dead and not yet reaped does not."""
    try:
        return process.is_running() and process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def send(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    """A signal to each; those that are gone do not mind."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
