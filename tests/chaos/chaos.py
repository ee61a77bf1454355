"""The chaos suite: a run on real processes that are killed and stopped at random, judged from outside.

    python tests/chaos/chaos.py --kills 100 --tasks 5000 --in-flight 64 --latency 1

`checker` says what is counted, `chaos_faults` what goes wrong. The last line on stdout is one JSON object;
the course of the run goes to stderr. Exit code 0 if every task has its row once and no call was paid twice.
What the run left behind is kept if it failed, or with `--dir`.
"""

import argparse
import contextlib
import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from random import Random
from typing import Any

from chaos_faults import HOST_KILLS, KILLS, plan, strike
from chaos_hosts import NEAR, TwoHosts
from chaos_stage import PEERLOOM, STILL_SECONDS, Failed, Shape, Stage, environment
from checker import Verdict, judge, passed


def perform(stage: Stage, given: argparse.Namespace, hosts: TwoHosts | None) -> dict[str, Any]:
    """The whole run with its faults; the seconds from each kind of fault to the next row."""
    rng = Random(given.seed)
    waits: defaultdict[str, list[float]] = defaultdict(list)
    stage.run()
    if hosts is not None:
        stage.wait_for_rows(1)
        ask_from_afar(stage, hosts)
    for fault in plan(given.kills, given.stops, rng, given.only):
        stage.wait_for_rows(round(fault.at * given.tasks))
        rows, began = stage.rows, time.monotonic()
        strike(stage, fault.kind, rng, hosts)
        struck = time.monotonic()
        stage.wait(lambda rows=rows: stage.rows > rows, STILL_SECONDS, f"a row after {fault.kind}")
        waits[fault.kind].append(time.monotonic() - began)
        waited = waits[fault.kind][-1]
        tell(f"{rows:6} rows: {fault.kind}, {struck - began:.1f} s, next row after {waited:.1f} s")
    stage.finish()
    return {kind: round(max(seconds), 2) for kind, seconds in sorted(waits.items())}


def ask_from_afar(stage: Stage, hosts: TwoHosts) -> None:
    """Ask the run from the other host how it is going.

    Raises:
        Failed: if the run itself does not answer there.
    """
    command = [*hosts.on(hosts.far), *PEERLOOM, "ctl", "status", str(stage.run_dir), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    told = json.loads(done.stdout) if done.returncode == 0 else {}
    if not told.get("address", "").startswith(NEAR):
        raise Failed(f"ctl status from the far host, exit code {done.returncode}: {done.stdout}{done.stderr}")
    tell(f"from the far host: {told['state']}, at {told['address']}")


def on_two(shape: Shape, hosts: TwoHosts) -> Shape:
    """The same run, its driver and model on the near host, its peers on both: one role has no other home."""
    return dataclasses.replace(
        shape,
        placement="spread",
        overrides=("roles.fan.resources.far=0.1", "roles.chain.resources.near=0.1", *shape.overrides),
        host=NEAR,
        prefix=hosts.on(hosts.near),
        environment=hosts.environment,
    )


def report(verdict: Verdict, **more: Any) -> int:
    """Say what was found; the exit code."""
    for finding in verdict.findings:
        tell(f"FOUND: {finding}")
    print(json.dumps(verdict.counts | more))
    return 0 if passed(verdict) else 1


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Kill and stop the processes of a run, and count its rows.")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--stops", type=int, default=None, help="SIGSTOP and SIGCONT; half as many as kills")
    parser.add_argument("--only", default="", help="kinds of kills to draw from")
    parser.add_argument("--hosts", type=int, choices=(1, 2), default=1, help="2: in network namespaces")
    parser.add_argument("--tasks", type=int, default=None, help="60 for each kill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--placement", choices=("spread", "packed"), default="spread")
    parser.add_argument("--in-flight", type=int, default=40)
    parser.add_argument("--latency", type=float, default=0.3, help="of the model, seconds")
    parser.add_argument("--suspect-seconds", type=float, default=3.0)
    parser.add_argument("--dir", type=Path, default=None, help="where to work; kept")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for `peerloom run`")
    given = parser.parse_args()
    every = KILLS if given.hosts == 1 else HOST_KILLS
    given.only = tuple(given.only.split(",")) if given.only else every
    given.stops = given.kills // 2 if given.stops is None else given.stops
    given.tasks = max(60 * given.kills, 100) if given.tasks is None else given.tasks
    return given


def main() -> int:
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # and leave no process behind
    folder = given.dir or Path(tempfile.mkdtemp(prefix="peerloom-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    shape = Shape(
        tasks=given.tasks,
        in_flight=given.in_flight,
        latency=given.latency,
        placement=given.placement,
        suspect_seconds=given.suspect_seconds,
        overrides=tuple(given.set),
    )
    began = time.monotonic()
    slowest: dict[str, Any] = {}
    failure = ""
    with contextlib.ExitStack() as stack:
        hosts = None
        if given.hosts == 2:
            hosts = stack.enter_context(TwoHosts())
            shape = on_two(shape, hosts)
        stage = Stage(folder, shape)
        try:
            with stage:
                slowest = perform(stage, given, hosts)
        except Failed as error:
            failure = str(error)
    seconds = round(time.monotonic() - began, 1)
    verdict = judge(stage.run_dir, stage.source, stage.calls, stage.faults)
    if failure:
        verdict.findings.append(failure)
    code = report(
        verdict, seconds=seconds, seed=given.seed, sessions=stage.sessions, next_row_seconds=slowest
    )
    if code or given.dir:
        tell(f"kept: {folder}")
    else:
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
    return code


if __name__ == "__main__":
    sys.exit(main())
