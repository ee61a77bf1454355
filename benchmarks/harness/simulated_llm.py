"""The model that benchmarks call: `peerloom simulate-llm` in a process of its own, and its log."""

import asyncio
import re
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks.harness.points import BenchError
from peerloom.services.processes.spawn import ChildProcess, LocalSpawner

PEERLOOM = (sys.executable, "-m", "peerloom")
START_SECONDS = 30.0
LOOK_SECONDS = 0.05
_REFUSED = 429


class Served(NamedTuple):
    """The calls that the model has answered, by its log, from the first one's arrival to the last answer."""

    calls: int
    first: float
    last: float
    tokens: int = 0  # of the replies


class Asked(NamedTuple):
    """The attempts that the model has seen, by its log, refused ones included."""

    seconds: float
    attempts: int
    served: int
    refused: int


class _Call(msgspec.Struct):
    """The fields of a line of the log that are needed."""

    t: float
    received: float
    status: int
    completion_tokens: int = 0


@asynccontextmanager
async def simulated_llm(
    log: Path, *, latency: float, tokens: int, **behavior: float | str
) -> AsyncGenerator[tuple[str, int]]:
    """Start a simulated model in a process of its own; yield its URL and process id.

    Args:
        log: gets a line a call.
        latency: seconds of every call.
        tokens: length of every reply, of four characters each.
        behavior: more of `peerloom.services.llm.simulated.behavior`.

    Raises:
        BenchError: if it does not start.
    """
    options = {"port": 0, "latency": latency, "tokens": tokens, "tokens_sigma": 0, "log": log, **behavior}
    output = log.with_suffix(".out")
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    argv = [*PEERLOOM, "simulate-llm", *flags]
    child = await LocalSpawner().start(argv, name="simulate-llm", log=output)
    try:
        yield await _announced(child, output), child.pid
    finally:
        await child.stop()


def served(log: Path, expected: int, *, spare: int = 0) -> Served:
    """Return the calls of a system that has made all of them.

    Args:
        log: of the model.
        expected: how many calls the work takes.
        spare: how many more there may be, by which a system sees whether the model is there.

    Raises:
        BenchError: if there were fewer calls or more of them, or some were not answered.
    """
    calls = _calls(log)
    good = _good(calls)
    if len(good) < expected or len(calls) > expected + spare:
        raise BenchError(
            f"{expected} calls were due, the model has got {len(calls)} and answered {len(good)}"
        )
    return _sum(good)


def served_so_far(log: Path) -> Served:
    """Return the calls of a system that was stopped before it had made all.

    Raises:
        BenchError: if there were none.
    """
    good = _good(_calls(log))
    if not good:
        raise BenchError("no call was answered")
    return _sum(good)


def first_call(log: Path) -> float | None:
    """Return when the first answered call arrived; None if there is none yet."""
    try:
        with log.open("rb") as lines:
            return msgspec.json.decode(lines.readline(), type=_Call).received
    except (OSError, msgspec.DecodeError):
        return None


def _calls(log: Path) -> list[_Call]:
    return msgspec.json.Decoder(_Call).decode_lines(log.read_bytes())


def _good(calls: list[_Call]) -> list[_Call]:
    return [call for call in calls if call.status == 200]


def _sum(good: list[_Call]) -> Served:
    first, last = min(call.received for call in good), max(call.t for call in good)
    return Served(len(good), first, last, sum(call.completion_tokens for call in good))


def asked(log: Path) -> Asked:
    """Return the attempts of a run, some of which were refused."""
    calls = _calls(log)
    first, last = min(call.received for call in calls), max(call.t for call in calls)
    refused = sum(call.status == _REFUSED for call in calls)
    return Asked(last - first, len(calls), len(_good(calls)), refused)


def count_served(log: Path) -> int:
    """Count the calls that the model has answered."""
    return len(_good(_calls(log)))


async def _announced(child: ChildProcess, output: Path) -> str:
    """Wait for the URL that the model prints once it listens."""
    dead = asyncio.create_task(child.wait())
    said = ""
    try:
        for _ in range(int(START_SECONDS / LOOK_SECONDS)):
            await asyncio.wait((dead,), timeout=LOOK_SECONDS)
            said = await asyncio.to_thread(output.read_text)
            if found := re.search(r"http://\S+", said):
                return found[0]
            if dead.done():
                break
    finally:
        dead.cancel()
    raise BenchError(f"the simulated model does not start: {said.strip()[-500:] or 'it says nothing'}")
