"""What the chaos suite sees of a run is what is there."""

import subprocess
import sys
from pathlib import Path

import psutil
from chaos_watch import LogTail, RowCount, alive


def test_lines_are_counted_in_all_parts_there_are(tmp_path: Path) -> None:
    for folder in ("data", "rejected"):
        (tmp_path / folder).mkdir()
    count = RowCount(tmp_path)
    assert count.count() == 0
    part, taken_over = tmp_path / "data" / "part-0.jsonl", tmp_path / "data" / "part-1.jsonl"
    part.write_text("{}\n{}\n{")
    (tmp_path / "rejected" / "part-0.jsonl").write_text("{}\n")
    assert count.count() == 3
    with part.open("a") as file:
        file.write("}\n")
    assert count.count() == 4
    taken_over.write_text("{}\n{}\n")
    part.unlink()
    assert count.count() == 3


def test_a_log_is_read_line_by_line_once(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    tail = LogTail(log)
    assert list(tail.entries()) == []
    log.write_text('{"n": 1}\n{"n": 2')
    assert list(tail.entries()) == [{"n": 1}]
    with log.open("a") as file:
        file.write('}\n{"n": {"n": 3}\n{"n": 4}\n')
    assert list(tail.entries()) == [{"n": 2}, {"n": 4}]


def test_a_dead_process_is_dead_before_it_is_reaped() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        seen = psutil.Process(process.pid)
        assert alive(seen)
        process.kill()
        while seen.status() != psutil.STATUS_ZOMBIE:
            pass
        assert not alive(seen)
    assert not alive(seen)
