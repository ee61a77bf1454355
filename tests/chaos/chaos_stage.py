"""The stage of a chaos run: the model's server, the driver and its members as processes, and what can be seen
of them.

Nothing here reaches into Peerloom. Members are known by the run's own `log.jsonl` (`member_joined` names
their process id), rows by the lines in its parts, deaths by looking at every process many times a second.
What died, and between which two moments, goes into the diary that the checker judges by.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from chaos_watch import LogTail, Member, RowCount, alive

HERE = Path(__file__).parent
PEERLOOM = [sys.executable, "-m", "peerloom"]
LOOK_SECONDS = 0.02
SURVEY_SECONDS = 1.0
STILL_SECONDS = 180.0
GONE_SECONDS = 60.0
HEARD_SECONDS = 0.5
_FOREIGN = ("OPENAI_", "PEERLOOM_", "RAY_ADDRESS")


class Failed(Exception):
    """The run did what it must not; says what."""


@dataclass(frozen=True)
class Shape:
    """How a run is started; `prefix` comes before its commands, to run them on a host of their own."""

    tasks: int = 600
    in_flight: int = 40
    latency: float = 0.3
    placement: str = "spread"
    suspect_seconds: float = 3.0
    overrides: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    partitions: int = 2
    prefix: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


class LLM:
    """The model's server: it can be killed and started again, at the same port, with the same log."""

    def __init__(self, shape: Shape, log: Path) -> None:
        self._command = [*shape.prefix, *PEERLOOM, "simulate-llm", "--host", shape.host, "--log", str(log)]
        self._command += ["--latency", str(shape.latency), "--latency-sigma", "0.5", "--tokens", "30"]
        self._port = 0
        self.start()

    def start(self) -> None:
        command = [*self._command, "--port", str(self._port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
        assert self.process.stdout is not None
        told = self.process.stdout.readline()
        found = re.search(r"(http://[^ ]+:(\d+)/v1)", told)
        if found is None:
            raise Failed(f"the model's server did not start: {told!r}")
        self.url, self._port = found[1], int(found[2])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@dataclass
class Stage:
    """One run and everything around it, in a folder of its own. Use it as a context manager."""

    folder: Path
    shape: Shape
    members: dict[int, Member] = field(default_factory=dict)
    sessions: int = 0
    lost: set[str] = field(default_factory=set)
    """The names of members that the run has given up, alive or not."""

    def __post_init__(self) -> None:
        self.run_dir, self.source = self.folder / "run", self.folder / "rows.jsonl"
        self.calls, self.faults = self.folder / "calls.jsonl", self.folder / "faults.jsonl"
        self.source.write_text(
            "".join(json.dumps({"topic": f"topic {n}"}) + "\n" for n in range(self.shape.tasks))
        )
        self.faults.touch()
        self._rows = RowCount(self.run_dir)
        self._log = LogTail(self.run_dir / "log.jsonl")
        self._below: set[psutil.Process] = set()
        self._surveyed = 0.0
        self._silent, self._died_unheard = False, list[dict[str, Any]]()
        self.driver: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Stage":
        self.llm = LLM(self.shape, self.calls)
        return self

    def __exit__(self, *_: object) -> None:
        self._survey()
        for process in (*self._below, *(member.process for member in self.members.values())):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self.driver is not None:
            self.driver.kill()
            self.driver.wait()
        self.llm.kill()

    def run(self) -> None:
        """Start the run."""
        shape = self.shape
        self._start(
            *("run", "chaos_workload:RECIPE", f"source.path={self.source}", "engine=ray"),
            *("llm=openai", "llm.model=simulated", f"llm.base_url={self.llm.url}", "llm.max_retries=100"),
            *(f"placement={shape.placement}", f"in_flight={shape.in_flight}"),
            *(f"partitions={shape.partitions}", f"shards={shape.partitions}"),
            *("heartbeat_seconds=0.25", f"suspect_seconds={shape.suspect_seconds}"),
            *(f"deliver_seconds={shape.suspect_seconds}", *shape.overrides),
            *("--run-dir", str(self.run_dir)),
        )

    def resume(self, *overrides: str) -> None:
        """Go on with a run whose driver has died."""
        self._start("resume", str(self.run_dir), *overrides)

    def _start(self, *arguments: str) -> None:
        self.sessions += 1
        command = [*self.shape.prefix, *PEERLOOM, *arguments, "--quiet"]
        with (self.folder / "driver.log").open("ab") as log:
            self.driver = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment(**self.shape.environment), process_group=0
            )

    @property
    def rows(self) -> int:
        """The lines in the parts there are."""
        return self._rows.count()

    @property
    def running(self) -> bool:
        return self.driver is not None and self.driver.poll() is None

    def living(self, kind: str) -> list[Member]:
        """The members of a kind that are up, by name; not those that a dead driver has left."""
        mine = [each for each in self.members.values() if each.kind == kind and each.session == self.sessions]
        return sorted((each for each in mine if alive(each.process)), key=lambda member: member.name)

    def cluster(self) -> list[psutil.Process]:
        """Every process below the driver, and every member."""
        self._survey()
        return [*self._below, *(member.process for member in self.members.values())]

    def look(self) -> None:
        """Take in what has happened: who joined, who died."""
        now = time.time()
        for entry in self._log.entries():
            if entry.get("event") == "member_joined":
                with contextlib.suppress(psutil.NoSuchProcess):
                    process = psutil.Process(entry["pid"])
                    self.members[process.pid] = Member(entry["member"], process, self.sessions, now)
            elif entry.get("event") == "member_lost":
                self.lost.add(entry["member"])
        for pid, member in list(self.members.items()):
            if alive(member.process):
                member.seen = now
            else:
                self._bury(self.members.pop(pid), time.time())
        if now - self._surveyed > SURVEY_SECONDS:
            self._survey()

    def wait(self, until: Callable[[], bool], seconds: float, what: str) -> None:
        """Look on until something holds.

        Raises:
            Failed: if it does not within the time, or the driver ends meanwhile.
        """
        deadline = time.monotonic() + seconds
        while not until():
            self.look()
            if not self.running:
                assert self.driver is not None
                raise Failed(f"the run ended with {self.driver.poll()} before {what}{self.tail()}")
            if time.monotonic() > deadline:
                raise Failed(f"{seconds:g} s passed before {what}{self.tail()}")
            time.sleep(LOOK_SECONDS)

    def pass_time(self, seconds: float) -> None:
        """Only look on."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.look()
            time.sleep(LOOK_SECONDS)

    def unheard(self, members: Sequence[Member]) -> None:
        """Note that from now on nothing reaches these."""
        self._silent = True
        for member in members:
            member.unheard = time.time()

    def heard(self, late: float = 0.0) -> None:
        """Note that whoever the run has not given up is reached again.

        Requests of those that have died may arrive for `late` seconds: after a cut the kernel repeats its
        packets at intervals up to the length of the cut, also those of dead processes.
        """
        for entry in self._died_unheard:
            self.note(**entry, before=time.time() + late)
        self._silent = False
        self._died_unheard.clear()
        self.pass_time(HEARD_SECONDS)
        for member in self.members.values():
            if member.name not in self.lost:
                member.unheard = None

    def wait_for_rows(self, rows: int) -> None:
        """Wait until so many rows are there; the run must never stand still for `STILL_SECONDS`.

        Raises:
            Failed: if it does, or ends meanwhile.
        """
        while (now := self.rows) < rows:
            self.wait(
                lambda now=now: self.rows > now, STILL_SECONDS, f"the run made progress past {now} rows"
            )

    def finish(self) -> None:
        """Wait for the end of the run, which must be a good one, and for its processes to go.

        Raises:
            Failed: if the run stands still or fails, or processes outlive it.
        """
        seen, since = self.rows, time.monotonic()
        while self.running:
            self.look()
            if self.rows != seen:
                seen, since = self.rows, time.monotonic()
            elif time.monotonic() - since > STILL_SECONDS:
                raise Failed(f"no row and no end for {STILL_SECONDS:g} s, at {seen} rows{self.tail()}")
            time.sleep(LOOK_SECONDS)
        assert self.driver is not None
        if self.driver.returncode:
            raise Failed(f"the run ended with {self.driver.returncode}{self.tail()}")
        left = {*self._below, *(member.process for member in self.members.values())}
        _, staying = psutil.wait_procs(list(left), timeout=GONE_SECONDS)
        if still := [process for process in staying if alive(process)]:
            raise Failed(f"processes outlive the run: {still}")

    def note(self, **entry: Any) -> None:
        """Write into the diary."""
        with self.faults.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def tail(self) -> str:
        """The last lines of the run's log and of what the driver printed."""
        shown = ""
        for path in (self.run_dir / "log.jsonl", self.folder / "driver.log"):
            if path.exists():
                lines = path.read_text(errors="replace").splitlines()[-15:]
                shown += f"\n--- {path}\n" + "\n".join(line[:400] for line in lines)
        return shown

    def _bury(self, member: Member, now: float) -> None:
        if member.kind in ("feeder", "sink"):  # they make no calls
            return
        unheard = member.unheard
        entry: dict[str, Any] = {
            "interrupted": member.name,
            "after": member.seen if unheard is None else unheard,
            "suspected": unheard is not None,
            "most": 4 * self.shape.in_flight,
        }
        if self._silent and unheard is not None:
            self._died_unheard.append(entry)
        else:
            self.note(**entry, before=now)

    def _survey(self) -> None:
        self._surveyed = time.time()
        self._below = {process for process in self._below if alive(process)}
        if self.driver is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._below |= set(psutil.Process(self.driver.pid).children(recursive=True))


def environment(**extra: str) -> dict[str, str]:
    """This process's environment without what would change a run, with the workload to import."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    paths = [str(HERE), clean.get("PYTHONPATH", "")]
    return {**clean, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **extra}
