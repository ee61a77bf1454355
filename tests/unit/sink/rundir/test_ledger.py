"""The ledger never says less than was noted: through torn lines, kills, full disks and its own renewal."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from peerloom.sink.errors import DiskFull, SinkError
from peerloom.sink.layout import LEDGER
from peerloom.sink.rundir import ledger as module
from peerloom.sink.rundir.ledger import Ledger, read_ledger


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / LEDGER).parent.mkdir()
    return tmp_path


def noted(run_dir: Path) -> tuple[float, float]:
    entry = read_ledger(run_dir)
    assert entry is not None
    return entry.used.get("tokens", 0.0), entry.held.get("tokens", 0.0)


def test_a_run_without_a_ledger_has_none(tmp_path: Path) -> None:
    assert read_ledger(tmp_path) is None


def test_the_last_line_counts_and_a_new_session_begins_with_it(run_dir: Path) -> None:
    ledger = Ledger(run_dir, {"tokens": 7.0})
    assert noted(run_dir) == (7.0, 0.0)
    ledger.note({"tokens": 8.0}, {"tokens": 3.0})
    ledger.note({"tokens": 9.0}, {"tokens": 1.0})
    ledger.close()
    assert noted(run_dir) == (9.0, 1.0)
    Ledger(run_dir, {"tokens": 10.0}).close()
    assert noted(run_dir) == (10.0, 0.0)


def test_cut_at_any_byte_it_says_what_the_last_whole_line_said(run_dir: Path) -> None:
    ledger = Ledger(run_dir, {})
    for number in range(1, 6):
        ledger.note({"tokens": float(number)}, {"tokens": 100.0})
    ledger.close()
    whole = (run_dir / LEDGER).read_bytes()
    first = whole.index(b"\n") + 1
    for size in range(first, len(whole) + 1):
        (run_dir / LEDGER).write_bytes(whole[:size])
        assert noted(run_dir)[0] == whole[:size].count(b"\n") - 1


def test_a_damaged_line_is_passed_over(run_dir: Path) -> None:
    (run_dir / LEDGER).write_bytes(b'{"used":{"tokens":5.0},"held":{}}\n\0\0\0\0\n{"used":{"tok')
    assert noted(run_dir) == (5.0, 0.0)


def test_it_is_begun_anew_before_it_gets_long(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1_000)
    ledger = Ledger(run_dir, {})
    before = len(os.listdir("/proc/self/fd"))
    for number in range(500):
        ledger.note({"tokens": float(number)}, {"tokens": 1.0})
        assert noted(run_dir) == (float(number), 1.0)
        assert (run_dir / LEDGER).stat().st_size <= 1_000
    assert len(os.listdir("/proc/self/fd")) == before
    ledger.close()


KILLED = """
import sys
from pathlib import Path
from peerloom.sink.rundir import ledger as module
module.MAX_BYTES = 2_000
ledger = module.Ledger(Path(sys.argv[1]), {})
number = 0
while True:
    number += 1
    ledger.note({"tokens": float(number)}, {})
    print(number, flush=True)
"""


def test_killed_at_any_time_it_says_no_less_than_was_noted(run_dir: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, run_dir], stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        for _ in range(300):
            last = running.stdout.readline()
        running.send_signal(signal.SIGKILL)
        told = [last, *running.stdout.read().splitlines(keepends=True)]
    most = max(int(line) for line in told if line.endswith(b"\n"))
    assert most <= noted(run_dir)[0] <= most + 1


class Full:
    """`os.write` on a disk with room for so many bytes."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.write = os.write

    def __call__(self, fd: int, data: bytes) -> int:
        if not self.room:
            raise OSError(28, "No space left on device")
        written = self.write(fd, data[: self.room])
        self.room -= written
        return written


@pytest.mark.parametrize("room", [0, 1, 20])
def test_on_a_full_disk_it_says_so_and_keeps_what_it_said(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    ledger = Ledger(run_dir, {"tokens": 1.0})
    ledger.note({"tokens": 2.0}, {})
    with monkeypatch.context() as patch:
        patch.setattr(module.os, "write", Full(room))
        with pytest.raises(DiskFull, match="Make room there"):
            ledger.note({"tokens": 3.0}, {})
    assert noted(run_dir) == (2.0, 0.0)
    ledger.note({"tokens": 4.0}, {"tokens": 1.0})
    ledger.note({"tokens": 5.0}, {})
    ledger.close()
    assert noted(run_dir) == (5.0, 0.0)


def test_no_room_for_a_new_file_leaves_the_old_one(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(run_dir, {})
    ledger.note({"tokens": 2.0}, {})

    def full(*_: object) -> None:
        raise DiskFull("no room")

    with monkeypatch.context() as patch:
        patch.setattr(module, "MAX_BYTES", 10)
        patch.setattr(module, "write_atomically", full)
        for _ in range(2):
            with pytest.raises(DiskFull):
                ledger.note({"tokens": 3.0}, {})
    assert noted(run_dir) == (2.0, 0.0)
    ledger.note({"tokens": 3.0}, {})
    assert noted(run_dir) == (3.0, 0.0)
    ledger.close()


def test_a_failed_sync_is_an_error_and_the_next_line_is_in_a_new_file(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SYNC_SECONDS", -1.0)
    ledger = Ledger(run_dir, {})
    inode = (run_dir / LEDGER).stat().st_ino

    def broken(fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "fdatasync", broken)
        with pytest.raises(SinkError, match="Input/output error"):
            ledger.note({"tokens": 3.0}, {})
    ledger.note({"tokens": 4.0}, {})
    assert (run_dir / LEDGER).stat().st_ino != inode
    assert noted(run_dir) == (4.0, 0.0)
    ledger.close()
