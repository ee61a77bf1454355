"""What the tests of real engines share."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil

FOLDER = Path(os.environ.get("PEERLOOM_ENGINES") or "/nowhere").absolute()  # the session forgets the variable
PATIENCE = 400.0  # seconds: two replicas load side by side on two cores


def peerloom(*arguments: str, python: str = sys.executable, timeout: float = PATIENCE) -> str:
    """The standard output of a command that succeeds."""
    ended = subprocess.run(
        [python, "-m", "peerloom", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    return ended.stdout


def until(holds: Callable[[], object], seconds: float = PATIENCE) -> float:
    """Wait until something holds; how long that took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, f"it did not happen within {seconds:g} s"
        time.sleep(0.2)
    return time.monotonic() - began


def until_gone(tree: Mapping[int, str], seconds: float = 60) -> float:
    """Wait until all processes of a tree have ended; how long that took."""
    began = time.monotonic()
    while left := left_of(tree):
        waited = time.monotonic() - began
        assert waited < seconds, f"after {waited:.0f} s there are still {[tree[pid] for pid in left]}"
        time.sleep(0.2)
    return time.monotonic() - began


def tree_of(pid: int) -> dict[int, str]:
    """A process and all below it: their ids, and how they call themselves."""
    top = psutil.Process(pid)
    return {each.pid: " ".join(each.cmdline()) for each in (top, *top.children(recursive=True))}


def left_of(pids: Iterable[int]) -> list[int]:
    """Those that have not ended."""
    return [
        pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    ]


def note(name: str, **figures: Any) -> None:
    """Print figures, and keep them beside the engines."""
    line = json.dumps({"what": name, **figures})
    print(line, flush=True)
    with (FOLDER / "figures.jsonl").open("a") as file:
        file.write(line + "\n")
