"""How soon a large run goes on after it was killed: from `peerloom resume` to its first call of the model.

A run of Coral is begun and killed, then its run directory is filled with finished rows through the sink's
own writer, all but a few that are spread over the input. Resumed, its first call is taken from the log of
the simulated model, which runs outside. Prints one JSON object.

    python -m benchmarks.resume --rows 1000000 --bytes 10000
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from peerloom.sink.layout import INDEX, POSITIONS
from peerloom.sink.rows import Row
from peerloom.sink.shard import ShardFiles
from peerloom.sink.totals import AgentTally
from peerloom.task import COMPLETED, TaskId

GROUP = 500
OPEN_BYTES = 32 * 2**20  # of rows in the part that the killed session leaves open
PEERLOOM = [sys.executable, "-m", "peerloom"]
IN_FLIGHT = 64

STAGES = {
    "take over the shard": """
from peerloom.sink.shard import ShardFiles
measured(lambda: len(ShardFiles.take(run_dir, 0, 900_001).committed))
""",
    "find and read the first missing rows": """
import asyncio
from peerloom.runtime.member.admission import AdmissionQueue
from peerloom.runtime.settings import RunSettings
from peerloom.sink.layout import POSITIONS
from peerloom.sink.shard import ShardFiles
from peerloom.source.open import open_source
known = ShardFiles.take(run_dir, 0, 900_002).committed
offers = AdmissionQueue(open_source(source), 0, RunSettings(), known, run_dir / POSITIONS)
measured(lambda: asyncio.run(offers.read()) or offers.take()[0].row)
""",
    "count the rows": """
from peerloom.sink.layout import POSITIONS
from peerloom.source.open import open_source
measured(lambda: open_source(source).index(run_dir / POSITIONS))
""",
}
HARNESS = """
import json, re, sys, time
from pathlib import Path
run_dir, source = map(Path, sys.argv[1:])
def peak():
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
def measured(work):
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before, started = peak(), time.perf_counter()
    result = work()
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": round(seconds, 3), "more_mb": round(peak() - before, 1), "result": result}))
"""


def write_source(path: Path, rows: int, size: int) -> None:
    """Write questions of `size` bytes, most of it in a field that nobody reads."""
    head = b'{"number": %d, "question": "Which one?", "options": ["this", "that"], "answer": "A", "fill": "'
    with path.open("wb", buffering=2**22) as file:
        for number in range(rows):
            begin = head % number
            file.write(begin + b"x" * max(0, size - len(begin) - 3) + b'"}\n')


def missing_rows(rows: int, done: int) -> set[int]:
    """Return the rows that are not done, spread over the input."""
    missing = rows - done
    return {index * rows // missing for index in range(missing)}


class Filler:
    """Commits finished rows, in the order of the input."""

    def __init__(self, run_dir: Path, rows: int, done: int, size: int) -> None:
        self._run_dir = run_dir
        missing = missing_rows(rows, done)
        self._left = iter([number for number in range(rows) if number not in missing])
        self._line = b'{"id": "0-%d-0", "outcome": "completed", "fill": "' + b"x" * max(0, size - 64) + b'"}'

    def commit(self, count: int, incarnation: int) -> None:
        """Commit so many rows more; the last part stays open."""
        shard = ShardFiles.take(self._run_dir, 0, incarnation)
        for begin in range(0, count, GROUP):
            numbers = islice(self._left, min(GROUP, count - begin))
            tally = {"teacher": AgentTally(turns=1, calls=1, prompt=100, completion=50)}
            shard.commit([Row(TaskId(0, n, 0), COMPLETED, "", self._line % n, tally) for n in numbers])


def drop_caches() -> bool:
    """Forget what the system has read; only root may."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError as error:
        print(f"the page cache is warm: {error}", file=sys.stderr)
        return False
    return True


@contextmanager
def model(log: Path) -> Generator[str]:
    """Start a simulated model in a process of its own, and yield its address."""
    command = [*PEERLOOM, "simulate-llm", "--port", "0", "--log", str(log), "--latency", "0.2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            found = re.search(r"http://\S+?:\d+", server.stdout.readline())
            assert found is not None, "the simulated model did not start"
            yield f"{found[0]}/v1"
        finally:
            server.terminate()


@contextmanager
def running(command: list[str], log: Path) -> Generator[subprocess.Popen[bytes]]:
    """Start a run in a session of its own, and kill it at the end with all that belongs to it."""
    with log.open("wb") as output:
        run = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            yield run
        finally:
            with suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
            run.wait()


def await_true(condition: Any, run: subprocess.Popen[bytes], log: Path, seconds: float) -> None:
    """Wait for a condition; exit with the log if the run ends before, or the time is over."""
    until = time.monotonic() + seconds
    while not condition():
        if run.poll() is not None or time.monotonic() > until:
            sys.exit(f"the run did not get there:\n{log.read_text()}")
        time.sleep(0.02)


def first_call(log: Path, since: float) -> float | None:
    """Return when the first call after a moment arrived."""
    times = [json.loads(line)["received"] for line in log.read_bytes().splitlines()]
    return min((moment for moment in times if moment >= since), default=None)


def milestones(run_dir: Path, since: float) -> dict[str, float]:
    """Return the seconds after `since` at which the run reached its stages, by its log."""
    named = {"notice": "checked", "run_started": "engine_up", "view_changed": "members_up"}
    found: dict[str, float] = {}
    for line in (run_dir / "log.jsonl").read_bytes().splitlines():
        entry = json.loads(line)
        if entry["time"] >= since and entry["event"] in named:
            found.setdefault(named[entry["event"]], round(entry["time"] - since, 3))
    return found


def resumed(run_dir: Path, calls: Path, log: Path) -> dict[str, float]:
    """Resume the run to its first call, and return the seconds since the process began."""
    started = time.time()
    with running([*PEERLOOM, "resume", str(run_dir), "--quiet"], log) as run:
        await_true(lambda: first_call(calls, started), run, log, 600)
        moment = first_call(calls, started)
        assert moment is not None
        return {**milestones(run_dir, started), "first_call": round(moment - started, 3)}


def stages(run_dir: Path, source: Path) -> dict[str, Any]:
    """Measure the parts of it, each with a cold cache in a process of its own."""
    found: dict[str, Any] = {}
    for name, code in STAGES.items():
        drop_caches()
        command = [sys.executable, "-c", HARNESS + code, str(run_dir), str(source)]
        found[name] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found


def measure(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Kill a run of many rows, resume it twice, and return the times that this took."""
    source, run_dir, calls, log = (folder / name for name in ("q.jsonl", "run", "calls.jsonl", "log"))
    done = args.rows - args.missing
    row_bytes = args.bytes if shutil.disk_usage(folder).free > 2.5 * args.rows * args.bytes else 200
    write_source(source, args.rows, args.bytes)
    with model(calls) as url:
        begin = [f"source.path={source}", "llm=openai", f"llm.base_url={url}", f"in_flight={IN_FLIGHT}"]
        with running([*PEERLOOM, "run", "coral", *begin, "--run-dir", str(run_dir), "--quiet"], log) as run:
            # By then the rows are counted, and some have been committed.
            parts = run_dir / INDEX
            await_true(lambda: (run_dir / POSITIONS).exists() and any(parts.iterdir()), run, log, 900)
        time.sleep(5)  # Ray's processes outlive the driver for a while
        filler = Filler(run_dir, args.rows, done, row_bytes)
        last = min(done // 2, OPEN_BYTES // row_bytes)
        filler.commit(done - last, 900_000)
        in_process = stages(run_dir, source)
        filler.commit(last, 999_998)
        cold = drop_caches()
        first = resumed(run_dir, calls, log)
        time.sleep(5)
        warm = resumed(run_dir, calls, log)
    return {
        "rows": args.rows,
        "done": done,
        "bytes": args.bytes,
        "row_bytes": row_bytes,
        "cold": cold,
        "resumed": first,
        "resumed_again_warm": warm,
        "load": os.getloadavg()[0],
        "stages": in_process,
    }


def main() -> None:
    """Measure as the command line says, and print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--missing", type=int, default=1_000)
    parser.add_argument("--bytes", type=int, default=10_000, help="of a row of input, and of a finished row")
    parser.add_argument("--dir", type=Path, help="where to; needs room for all rows twice, and is kept")
    args = parser.parse_args()
    if args.dir is not None:
        args.dir.mkdir(parents=True)
        print(json.dumps(measure(args.dir, args)))
        return
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), args)))


if __name__ == "__main__":
    main()
