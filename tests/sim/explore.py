"""Run many histories of the protocol in virtual time, each from its own seed.

    python tests/sim/explore.py --histories 100000 [--seed S] [--processes 2] [--bug NAME]

History number i has the seed S + i; `--histories 1 --seed X` lives through one again and prints it. With
`--bug` the protocol is broken on purpose (see bugs.py). The exit code is 1 if a promise was broken.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field

import bugs_histories  # noqa: F401 - registers its bugs
import bugs_journal  # noqa: F401 - registers its bugs
import bugs_leases  # noqa: F401 - registers its bugs
from bugs import BUGS, planted
from world import Violation, World

CHUNK = 250
MOST_VIOLATIONS = 5
TRACE_LINES = 60


@dataclass(slots=True)
class Findings:
    """What a number of histories came to; `violations` are (seed, what).

    `repaid` calls and turns were excused (see ledger.py), `recalled` ones were not paid for again, and
    `dropped` segments of the journal were let go. `chained` records are of several hops, `finished` rows were
    made by another peer than the last one that acted, and `leased` are steps on leases.
    """

    histories: int = 0
    steps: int = 0
    rows: int = 0
    hops: int = 0
    redone: int = 0
    views: int = 0
    sessions: int = 0
    calls: int = 0
    repaid: int = 0
    recalled: int = 0
    dropped: int = 0
    chained: int = 0
    finished: int = 0
    leased: int = 0
    violations: list[tuple[int, str]] = field(default_factory=list)

    def add(self, other: "Findings") -> None:
        """Count another part in."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


def live_through(seed: int, findings: Findings) -> None:
    """One history, added to `findings`."""
    world = World(seed)
    try:
        world.run()
    except Violation as violation:
        findings.violations.append((seed, str(violation)))
    except Exception as error:  # the core itself broke down: a finding as well
        findings.violations.append((seed, f"{type(error).__name__}: {error}"))
    findings.histories += 1
    findings.steps += world.steps
    findings.rows += len(world.durable)
    findings.hops += world.acts
    findings.redone += world.redone
    findings.views += world.views
    findings.sessions += world.sessions.number
    findings.calls += len(world.ledger.requests) - 1
    findings.repaid += world.ledger.repaid
    findings.recalled += world.recalled
    findings.dropped += world.disk.dropped
    findings.chained += world.chained
    findings.finished += world.finished
    findings.leased += world.steps_executed


def trace(seed: int) -> list[str]:
    """What happened in one history, a line a step."""
    lines: list[str] = []
    try:
        World(seed, lines).run()
    except Exception as error:
        lines.append(f"==== {type(error).__name__}: {error}")
    return lines


def explore(seeds: range, *, most_violations: int = MOST_VIOLATIONS) -> Findings:
    """Histories with these seeds, in this process, until there are so many violations."""
    findings = Findings()
    for seed in seeds:
        live_through(seed, findings)
        if len(findings.violations) >= most_violations:
            break
    return findings


def _explore_chunk(chunk: tuple[range, str | None]) -> Findings:
    seeds, bug = chunk
    with planted(bug) if bug else nullcontext():
        return explore(seeds)


def _chunks(seeds: range, processes: int, bug: str | None) -> Iterator[Findings]:
    work = [(seeds[at : at + CHUNK], bug) for at in range(0, len(seeds), CHUNK)]
    if processes == 1 or len(work) == 1:
        yield from map(_explore_chunk, work)
        return
    with multiprocessing.Pool(processes) as pool:
        yield from pool.imap_unordered(_explore_chunk, work)


def main(arguments: list[str] | None = None) -> int:
    """The command line; gives the exit code."""
    parser = argparse.ArgumentParser(description="Explore the protocol in virtual time.")
    parser.add_argument("--histories", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--bug", choices=sorted(BUGS), help="break the protocol on purpose")
    options = parser.parse_args(arguments)
    seeds = range(options.seed, options.seed + options.histories)
    findings, began = Findings(), time.perf_counter()
    said = began
    for part in _chunks(seeds, options.processes, options.bug):
        findings.add(part)
        if len(findings.violations) >= MOST_VIOLATIONS:
            break
        if time.perf_counter() - said > 10:
            said = time.perf_counter()
            print(f"{findings.histories:,} histories, {len(findings.violations)} violations", flush=True)
    seconds = time.perf_counter() - began
    with planted(options.bug) if options.bug else nullcontext():
        if findings.violations or len(seeds) == 1:
            seed = findings.violations[0][0] if findings.violations else options.seed
            print("\n".join(line[:300] for line in trace(seed)[-TRACE_LINES:]))
    for seed, what in findings.violations:
        print(f"VIOLATION with --seed {seed}: {what}")
    print(
        f"{findings.histories:,} histories, {findings.histories / seconds:,.0f} a second; "
        f"{len(findings.violations)} violations; {findings.steps:,} steps, {findings.views:,} views, "
        f"{findings.rows:,} rows, {findings.hops:,} hops, {findings.redone:,} of them redone, "
        f"{findings.calls:,} calls; {findings.sessions:,} sessions, {findings.recalled:,} recalled, "
        f"{findings.repaid:,} repaid, {findings.dropped:,} segments dropped; "
        f"{findings.chained:,} records of several hops, {findings.finished:,} rows made elsewhere, "
        f"{findings.leased:,} steps on leases"
    )
    return 1 if findings.violations else 0


if __name__ == "__main__":
    sys.exit(main())
