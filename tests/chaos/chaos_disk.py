"""A run on a disk that fills up and gets room later: it pauses, says so, and goes on.

    unshare --mount python tests/chaos/chaos_disk.py FOLDER

The run directory is a small tmpfs in a mount namespace of this process's own. Once nothing fits any more the
run has to stand still, with a notice in its log and with no more memory than before; then the disk is made
larger, and it has to finish. The last line on stdout is the checker's object, with the most memory that any
process gained meanwhile (`grown_mib`) and the notices.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from chaos_stage import STILL_SECONDS, Failed, Shape, Stage
from chaos_watch import LogTail, alive
from checker import judge, passed

SMALL, LARGE = "1m", "256m"
FULL_SECONDS = 8.0
STILL = 3.0
"""Seconds without a row that show a full disk."""


def resize(folder: Path, size: str, *options: str) -> None:
    subprocess.run(
        ["mount", "-o", ",".join([*options, f"size={size}"]), "-t", "tmpfs", "tmpfs", folder], check=True
    )


def memory(stage: Stage) -> dict[int, int]:
    """The resident bytes of the driver and each member."""
    assert stage.driver is not None
    found = {
        pid: member.process.memory_info().rss
        for pid, member in stage.members.items()
        if alive(member.process)
    }
    status = Path(f"/proc/{stage.driver.pid}/statm").read_text().split()
    return {**found, stage.driver.pid: int(status[1]) * os.sysconf("SC_PAGE_SIZE")}


def wait_until_still(stage: Stage) -> None:
    stage.wait_for_rows(10)
    seen, since, deadline = stage.rows, time.monotonic(), time.monotonic() + STILL_SECONDS
    while time.monotonic() - since < STILL:
        stage.pass_time(0.1)
        if stage.rows != seen:
            seen, since = stage.rows, time.monotonic()
        if not stage.running or time.monotonic() > deadline:
            raise Failed(f"the disk did not fill up{stage.tail()}")


def grown_while_full(stage: Stage) -> float:
    """MiB that the process which grew most gained while nothing fits."""
    before, most = memory(stage), 0
    deadline = time.monotonic() + FULL_SECONDS
    while time.monotonic() < deadline:
        stage.pass_time(0.25)
        most = max([most, *(rss - before[pid] for pid, rss in memory(stage).items() if pid in before)])
    return round(most / 2**20, 1)


def notices(run_dir: Path) -> list[str]:
    """What the run's log says to people so far."""
    entries = LogTail(run_dir / "log.jsonl").entries()
    return [entry["text"] for entry in entries if entry["event"] == "notice"]


def main() -> int:
    folder = Path(sys.argv[1])
    run_dir = folder / "run"
    run_dir.mkdir(parents=True)
    resize(run_dir, SMALL)
    stage = Stage(folder, Shape(tasks=600, in_flight=40, latency=0.1, placement="packed", partitions=1))
    try:
        with stage:
            stage.run()
            wait_until_still(stage)
            rows = stage.rows
            grown = grown_while_full(stage)
            still, said = stage.rows == rows, notices(run_dir)
            resize(run_dir, LARGE, "remount")
            stage.finish()
        verdict = judge(run_dir, stage.source, stage.calls, stage.faults)
        for finding in verdict.findings:
            print(finding, file=sys.stderr)
        seen = {"stood_still": still, "full_at_rows": rows, "grown_mib": grown, "said": said}
        print(json.dumps({**verdict.counts, **seen, "said_later": notices(run_dir)[len(said) :]}))
        return 0 if passed(verdict) else 1
    except Failed as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
