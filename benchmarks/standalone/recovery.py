"""`recovery`: how long a run takes to get over the death of a peer, and the memory it needs.

The work is that of the benchmark `calls`, in placement `packed` on two peers, and the model is so slow that
about 1,000 calls a second are made however many tasks are in flight. When a third of the rows are committed,
and the tasks that came after them have finished a turn or two, one peer is killed, with half of the tasks in
flight. From then on: when the run notices, when a replacement takes part, when the last of the lost tasks
is admitted again. `calls_repaid` is what the model has served beyond what the rows needed: calls that were
under way when the peer died.
"""

import os
import signal
import time
from pathlib import Path

from benchmarks.harness.memory import MemoryMeter
from benchmarks.harness.points import Bench, BenchError, RecoveryPoint, Setting
from benchmarks.harness.run import common, perform, scratch
from benchmarks.harness.simulated_llm import count_served, simulated_llm
from benchmarks.workloads.mini_coral import CALLS, MINI_CORAL, REPLY_TOKENS, program
from peerloom.events import Hooks, MemberJoined, MemberLost, Progress, ViewChanged
from peerloom.services.llm.hosted.providers import OpenAIService
from peerloom.sink.read import read_rows

CALLS_PER_SECOND = 1_000
KILL_AT = 1 / 3  # of the rows
LATENCIES = 2.5  # of the model, from then on


class Killer(Hooks):
    """Kills one peer, and notes when the run has noticed and when it is whole again.

    Args:
        tasks: of the whole run.
        latency: of the model, in seconds.
    """

    def __init__(self, tasks: int, latency: float) -> None:
        self._kill_at = tasks * KILL_AT
        self._wait = LATENCIES * latency
        self._due = float("inf")
        self._pids: dict[str, int] = {}
        self._victim = ""
        self.killed = self.noticed = self.replaced = 0.0

    def member_joined(self, event: MemberJoined) -> None:
        """Record the processes of the peers."""
        if event.member.startswith("peer"):
            self._pids[event.member] = event.pid

    def progress(self, event: Progress) -> None:
        """Kill the peer when it is time."""
        if sum(event.outcomes.values()) >= self._kill_at:
            self._due = min(self._due, event.seconds + self._wait)
        if not self.killed and event.seconds >= self._due:
            self._victim, pid = next(iter(self._pids.items()))
            self.killed = time.time()
            os.kill(pid, signal.SIGKILL)

    def member_lost(self, event: MemberLost) -> None:
        """Record when the run has noticed."""
        if event.member == self._victim:
            self.noticed = time.time()

    def view_changed(self, event: ViewChanged) -> None:
        """Record when all members are there again."""
        if self.noticed and not self.replaced:
            self.replaced = time.time()


async def run(setting: Setting) -> RecoveryPoint:
    """Measure one setting once."""
    latency = setting.in_flight / CALLS_PER_SECOND
    killer = Killer(setting.tasks, latency)
    with scratch() as folder:
        log, path = folder / "calls.jsonl", folder / "run"
        async with (
            simulated_llm(log, latency=latency, tokens=REPLY_TOKENS) as (url, pid),
            MemoryMeter(without=pid) as memory,
        ):
            llm = OpenAIService(base_url=url, api_key="none")
            source, name = MINI_CORAL.source(setting.tasks), "bench-recovery"
            work = await perform(program(), source, llm, setting, path=path, name=name, hooks=[killer])
        if not killer.replaced:
            raise BenchError("the run was over before the killed peer was replaced")
        again = admitted_again(path, killer.killed)
        repaid = count_served(log) - CALLS * setting.tasks
    return RecoveryPoint(
        **common(BENCH, setting, work),
        noticed_seconds=killer.noticed - killer.killed,
        replaced_seconds=killer.replaced - killer.killed,
        admitted_seconds=max(again, default=killer.killed) - killer.killed,
        calls_repaid=float(repaid),
        peak_megabytes=memory.peak / 2**20,
    )


def admitted_again(run_dir: Path, killed: float) -> list[float]:
    """Return when the tasks begun before the kill were admitted again, in Unix seconds."""
    rows = ((row["timing"]["started"], row["turns"][0]["started"]) for row in read_rows(run_dir))
    return [started for started, first in rows if first < killed < started]


BENCH = Bench(
    name="recovery",
    placements=("packed",),
    in_flight=(100, 1_000, 10_000),
    tasks=lambda in_flight: max(1_000, 3 * in_flight),
    runs=1,
    run=run,
)
