"""What the tests of the sink share: small rows, and every row there is in a run directory's files."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from peerloom.sink.layout import FOLDERS
from peerloom.sink.rows import Row
from peerloom.sink.shard import ShardFiles
from peerloom.sink.totals import AgentTally
from peerloom.task import TaskId

SYSTEM_CALLS = (
    *("open", "pwrite", "pread", "fdatasync", "fsync", "ftruncate", "sendfile", "rename", "unlink"),
    *("stat", "listdir"),
)


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the sink handles it."""


def row(number: int, outcome: str = "completed", *, size: int = 20) -> Row:
    line = json.dumps({"id": f"0-{number}-0", "outcome": outcome, "detail": "x" * size}).encode()
    reason = "" if outcome == "completed" else "because"
    return Row(TaskId(0, number, 0), outcome, reason, line, {"teacher": AgentTally(turns=1, seconds=0.5)})


def rows(numbers: Iterable[int]) -> list[Row]:
    """Every third one is rejected."""
    return [row(number, "completed" if number % 3 else "failed") for number in numbers]


def make_folders(run_dir: Path) -> Path:
    for folder in FOLDERS:
        (run_dir / folder).mkdir(parents=True)
    return run_dir


def lines_on_disk(run_dir: Path) -> list[bytes]:
    files = [*sorted(run_dir.glob("data/*")), *sorted(run_dir.glob("rejected/*"))]
    return [line for path in files for line in path.read_bytes().splitlines(keepends=True)]


def ids_on_disk(run_dir: Path) -> list[int]:
    """The row numbers in all files of rows, in order; every line must be whole, and in its folder."""
    numbers: list[int] = []
    for folder in ("data", "rejected"):
        for path in run_dir.glob(f"{folder}/*"):
            assert path.name.startswith("part-"), path
            for line in path.read_bytes().splitlines(keepends=True):
                assert line.endswith(b"\n"), path
                entry: dict[str, Any] = json.loads(line)
                assert (entry["outcome"] == "completed") == (folder == "data")
                numbers.append(int(entry["id"].split("-")[1]))
    return sorted(numbers)


def assert_holds(run_dir: Path, shard: ShardFiles, numbers: Iterable[int]) -> None:
    """The shard knows these rows, and they are in its files, each once, and nothing else."""
    expected = sorted(numbers)
    assert ids_on_disk(run_dir) == expected
    assert sorted(id.row for id in shard.committed) == expected
    assert shard.totals.admitted == len(expected)
    by_outcome = Counter("completed" if number % 3 else "failed" for number in expected)
    assert shard.totals.outcomes == by_outcome
    assert shard.totals.reasons.get("because", 0) == by_outcome["failed"]
    assert shard.totals.agents.get("teacher", AgentTally()) == AgentTally(
        turns=len(expected), seconds=len(expected) / 2
    )


@contextmanager
def at_system_call(number: int, action: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Run `action` just before the system call of that number; yields whether it came to that.

    Nothing is synced really, which keeps hundreds of cases fast.
    """
    count = 0

    def wrap(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                action()
            return None if name in {"fdatasync", "fsync"} else real(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in SYSTEM_CALLS:
            patch.setattr(os, name, wrap(name, getattr(os, name)))
        yield lambda: count >= number
