"""Starts a program, watches it from outside, and reads the one line that it prints.

Every system is the same here, Peerloom too: a program is given the path of a JSON file that says what to do
(the *spec*) and prints, as its last line, an object with `begin` and `end`: Unix seconds of the first task's
admission and of the last one's end. Its CPU time, its memory and that of all below it are taken from outside.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import psutil

from benchmarks.harness.cpu import CpuMeter
from benchmarks.harness.memory import MemoryMeter
from benchmarks.harness.points import BenchError
from benchmarks.harness.traffic import TrafficMeter
from peerloom.services.processes.spawn import ChildProcess, LocalSpawner

LOOK_SECONDS = 1.0  # between two looks whether it is enough
_WORDS = 400  # characters of its last line


@dataclass(frozen=True)
class Program:
    """A program to start.

    Args:
        argv: program and arguments; the path of the spec is added.
        env: beside ours.
    """

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict[str, str])


OURS = Program([sys.executable, "-m", "benchmarks.programs"])
"""Peerloom itself, at any of the workloads."""


class Seen:
    """The meters of a process, and the object that it has printed."""

    def __init__(self, root: int, every: float) -> None:
        self.cpu = CpuMeter(root=root, every=every)
        self.memory = MemoryMeter(root=root, every=max(every, 0.5))
        self.traffic = TrafficMeter(every=every)
        self.said: dict[str, Any] = {}
        self.stopped = False

    @property
    def begin(self) -> float:
        """When its first task was admitted."""
        return float(self.said["begin"])

    @property
    def end(self) -> float:
        """When its last task was over."""
        return float(self.said["end"])


async def watched(
    program: Program,
    spec: Mapping[str, Any],
    folder: Path,
    *,
    limit: float,
    every: float = 0.5,
    enough: Callable[[], bool] | None = None,
) -> Seen:
    """Run a program to its end, or until it is `enough`, and watch it.

    Raises:
        BenchError: if the program fails, says nothing, or takes too long.
    """
    path, output = folder / "spec.json", folder / "output"
    path.write_bytes(orjson.dumps(spec))
    child = await LocalSpawner().start(
        [*program.argv, str(path)], name=program.argv[-1], env=program.env, log=output
    )
    try:
        seen = Seen(child.pid, every)
        async with _watching(seen), asyncio.timeout(limit):
            code = await _ended(child, enough)
    except TimeoutError:
        raise BenchError(f"not done after {limit:,.0f} s") from None
    finally:
        await end_all(child.pid)
        await child.stop()
    if code is None:
        seen.stopped = True
        return seen
    text = output.read_text(errors="replace")
    seen.said = _last_line(text) if code == 0 else {}
    if not {"begin", "end"} <= seen.said.keys():
        [*_, words] = text.strip().splitlines() or ["it says nothing"]
        raise BenchError(f"it ended with code {code}: {words[-_WORDS:]}")
    return seen


async def _ended(child: ChildProcess, enough: Callable[[], bool] | None) -> int | None:
    """Wait for the end of a process and return its exit code; None once it is enough."""
    while enough is not None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                return await child.wait()
        if await asyncio.to_thread(enough):
            return None
    return await child.wait()


@asynccontextmanager
async def _watching(seen: Seen) -> AsyncGenerator[None]:
    async with seen.cpu, seen.memory, seen.traffic:
        yield


async def end_all(pid: int) -> None:
    """End a process and all below it, whatever sessions they are in."""
    with suppress(psutil.NoSuchProcess):
        top = psutil.Process(pid)
        for process in [*top.children(recursive=True), top]:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _last_line(text: str) -> dict[str, Any]:
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            with suppress(orjson.JSONDecodeError):
                return orjson.loads(line)
    return {}
