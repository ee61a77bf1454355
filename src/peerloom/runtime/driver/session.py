"""Manage a session: the work of one process on a run directory, which may have several in turn.

The numbers of views and incarnations of session s begin at (s - 1) * SPAN + 1, so all messages, files, and
copies of a killed session are older than those of this one. The number of the session is durable before any
member starts.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from importlib.metadata import version

from peerloom.errors import ConfigError, RunDirError
from peerloom.runtime.driver.summary import Summary
from peerloom.services.llm.client.service import ClientSpec
from peerloom.sink.errors import SinkError
from peerloom.sink.rundir.directory import RunDir
from peerloom.sink.rundir.state import Fingerprint, How, State, differences, read_summary
from peerloom.sink.rundir.versions import ProgramVersion, digest_of, program_changes, write_version
from peerloom.sink.rundir.withdraw import withdraw_failed
from peerloom.task import FAILED

SPAN = 1_000_000
MAX_SHOWN = 5  # values in a notice
SAVE_SECONDS = 30.0  # between two writes of the time that this session has used


class Session:
    """The next session of a claimed run directory. Nothing is written before `begin`.

    `version` is that of the program. With `retry_failed`, failed rows are done again. With `start_over`, a
    different run in the directory may be removed, if it has done no work. With `accept_program`, the program
    may differ from that of earlier sessions; `accepted` is whether it does. `number` counts the sessions of
    the directory, over all its runs, from 1; `wall_seconds` and `cpu_seconds` are those of earlier sessions.

    Raises:
        RunDirError: if the directory holds rows or turns of another run; the message names the differences.
    """

    def __init__(
        self,
        run_dir: RunDir,
        fingerprint: Fingerprint | None = None,
        version: ProgramVersion | None = None,
        *,
        retry_failed: bool = False,
        start_over: bool = True,
        accept_program: bool = False,
    ) -> None:
        self.run_dir = run_dir
        self._fingerprint = fingerprint or Fingerprint()
        self.version = version
        self._retry_failed = retry_failed
        earlier = run_dir.state
        found = differences(earlier.fingerprint, self._fingerprint) if earlier is not None else []
        changes = self._program_changes()
        self.accepted = bool(changes) and accept_program
        found += changes if not accept_program else []
        if found and (run_dir.has_work or not start_over):
            raise RunDirError(_refusal(run_dir, found, can_accept=bool(changes) and not accept_program))
        self._differs = bool(found)
        if self._differs:
            earlier = None
        self._earlier = earlier
        self.number = run_dir.last_session + 1
        self._programs = list(earlier.programs) if earlier is not None else []
        if version is not None and (not self._programs or self._programs[-1][1] != version.digest):
            self._programs.append((self.number, version.digest))
        self._began = earlier.began if earlier is not None else self.number
        self.wall_seconds = earlier.wall_seconds if earlier is not None else 0.0
        self.cpu_seconds = earlier.cpu_seconds if earlier is not None else 0.0
        self._model = earlier.model if earlier is not None else ""
        self._earlier_startup = earlier.startup_seconds if earlier is not None else 0.0
        self._started = time.monotonic()
        self._ready: float | None = None
        self._writing = threading.Lock()
        self._ended = False

    @property
    def first(self) -> int:
        """The number of the first view and of each member's first incarnation."""
        return _first_view(self.number)

    @property
    def count(self) -> int:
        """The number of sessions of this run, this one included."""
        return self.number - self._began + 1

    @property
    def programs(self) -> tuple[tuple[int, str], ...]:
        """The digests of the versions of the program, each with the first view of its first session."""
        return tuple((_first_view(session), digest) for session, digest in self._programs)

    @property
    def configuration(self) -> str:
        """The digest of the values that decide the rows, which the sessions of a run have in common."""
        return digest_of(self._fingerprint.same)

    @property
    def done(self) -> Summary | None:
        """The summary of the run, if an earlier session finished it and nothing is left to do."""
        earlier = self._earlier
        if earlier is None or earlier.how != "finished":
            return None
        if earlier.fingerprint.grows != self._fingerprint.grows:
            return None
        summary = read_summary(self.run_dir.path)
        if summary is None or (self._retry_failed and summary["outcomes"].get(FAILED)):
            return None
        return summary

    def begin(self) -> list[str]:
        """Make the number of the session durable, and return notices for the user. Blocks."""
        notices: list[str] = []
        if self._differs:
            self.run_dir.clear()
            notices = [f"{self.run_dir.path} held another run, which had done nothing yet: it was removed"]
        self._started = time.monotonic()
        if self.version is not None:
            write_version(self.run_dir.path, self.version)
            notices += _uncovered(self.version)
        self._write("running", self.wall_seconds, self.cpu_seconds)
        earlier = self._earlier
        if earlier is None:
            return notices
        notices.insert(0, f"continuing the run in {self.run_dir.path}, session {self.number}")
        if self.accepted:
            notices.append(
                f"the program has changed: this session uses version {self._programs[-1][1]}; rows tell "
                "which of their turns were made by an earlier one"
            )
        if earlier.peerloom != version("peerloom"):
            notices.append(
                f"the run was begun with Peerloom {earlier.peerloom}, this is {version('peerloom')}"
            )
        return notices

    def record_model(self, client: ClientSpec) -> None:
        """Record the model of the service; the fingerprint has it only if it is configured. Blocks.

        Raises:
            ConfigError: if earlier sessions of the run used another model.
        """
        model = getattr(client, "model", None)
        if not isinstance(model, str) or model == self._model:
            return
        if self._model and self.run_dir.has_work:
            line = f"llm.model: was {self._model}, now {model}"
            raise ConfigError(_refusal(self.run_dir, [line]))
        self._model = model
        self._write("running", self.seconds(), self.cpu_seconds)

    def retry(self) -> int:
        """Withdraw the failed rows if they are to be retried, and return their number. Blocks."""
        if not self._retry_failed or self._earlier is None:
            return 0
        # An incarnation below those of this session, and above those of all earlier ones.
        return len(withdraw_failed(self.run_dir.path, self.first - 1))

    def seconds(self) -> float:
        """Return the wall time of all sessions so far."""
        return self.wall_seconds + time.monotonic() - self._started

    def end_startup(self) -> None:
        """Mark the end of the startup, the first time it is called."""
        self._ready = self._ready or time.monotonic()
        self.run_dir.begun = True

    def startup_seconds(self) -> float:
        """Return the wall time that all sessions took before tasks could be admitted."""
        return self._earlier_startup + (self._ready or time.monotonic()) - self._started

    async def save_periodically(self, cpu_seconds: Callable[[], float]) -> None:
        """Write the times periodically, so that those of a killed session count too."""
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            with contextlib.suppress(SinkError):  # members report a full disk
                await asyncio.to_thread(self.save, cpu_seconds())

    def save(self, cpu_seconds: float, how: How = "running") -> None:
        """Write the times of all sessions and how this one ended. Blocks."""
        with self._writing:
            if not self._ended:
                self._ended = how != "running"
                self._write(how, self.seconds(), cpu_seconds)

    def _program_changes(self) -> list[str]:
        """Return the lines in which the program differs from that of the last session."""
        earlier = self.run_dir.state
        if earlier is None or not earlier.programs or self.version is None:
            return []
        was = earlier.programs[-1][1]
        return program_changes(self.run_dir.path, was, self.version) if was != self.version.digest else []

    def _write(self, how: How, wall_seconds: float, cpu_seconds: float) -> None:
        self.run_dir.write_state(
            State(
                session=self.number,
                began=self._began,
                peerloom=version("peerloom"),
                how=how,
                wall_seconds=round(wall_seconds, 3),
                cpu_seconds=round(cpu_seconds, 3),
                startup_seconds=round(self.startup_seconds(), 3),
                model=self._model,
                programs=self._programs,
                fingerprint=self._fingerprint,
            )
        )


def _first_view(session: int) -> int:
    return (session - 1) * SPAN + 1


def _uncovered(version: ProgramVersion) -> list[str]:
    """Return a notice of the values whose changes would not be noticed."""
    found = version.uncovered
    if not found:
        return []
    more = f", and {len(found) - MAX_SHOWN} more" if len(found) > MAX_SHOWN else ""
    return [
        f"a change of these would not be noticed as a change of the program: {'; '.join(found[:MAX_SHOWN])}"
        f"{more}. Give their agent a method program_state() to name what identifies them"
    ]


def _refusal(run_dir: RunDir, found: list[str], *, can_accept: bool = False) -> str:
    accept = (
        "or continue with the program as it is now, by --accept-program (accept_program=True in Python), "
        "which keeps the rows that the earlier one has made; "
    )
    return (
        f"{run_dir.path} holds a run that differs from this one:\n"
        + "".join(f"  {line}\n" for line in found)
        + f"Restore what differs to go on with it; {accept if can_accept else ''}"
        "or start over with --fresh (fresh=True in Python), which removes its rows and its journal; "
        "or choose another run directory (--run-dir, or run_dir=)"
    )
