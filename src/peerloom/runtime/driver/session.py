"""A session: one process's work on a run directory, which may go through several.

The numbers of views and incarnations of session s begin at (s - 1) * SPAN + 1, so whatever a process of
a killed session still says, writes or holds is older than anything of this one. The session's number is
durable before any member is started.
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
from peerloom.sink.rundir.state import Fingerprint, How, State, differences
from peerloom.sink.rundir.withdraw import withdraw_failed
from peerloom.task import FAILED

SPAN = 1_000_000
SAVE_SECONDS = 30.0  # between two writings of what this session has cost so far


class Session:
    """The next session of a run directory. Nothing is written before `begin`.

    Args:
        run_dir: claimed; the caller releases it.
        fingerprint: of the run that is wanted; without one, it only goes on with a run that had none.
        retry_failed: do failed rows again.
        start_over: another run that is there may be removed, if nothing of it would be lost.

    Attributes:
        run_dir: as given.
        number: 1 for the first session of the directory, whatever run that was of.
        wall_seconds: of earlier sessions.
        cpu_seconds: of earlier sessions.

    Raises:
        RunDirError: if the directory holds rows or turns of another run, naming what differs.
    """

    def __init__(
        self,
        run_dir: RunDir,
        fingerprint: Fingerprint | None = None,
        *,
        retry_failed: bool = False,
        start_over: bool = True,
    ) -> None:
        self.run_dir = run_dir
        self._fingerprint = fingerprint or Fingerprint()
        self._retry_failed = retry_failed
        earlier = run_dir.state
        found = differences(earlier.fingerprint, self._fingerprint) if earlier is not None else []
        if found and (run_dir.has_work or not start_over):
            raise RunDirError(_refusal(run_dir, found))
        self._differs = bool(found)
        if self._differs:
            earlier = None
        self._earlier = earlier
        self.number = run_dir.last_session + 1
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
        """The number of its first view, and of each member's first incarnation."""
        return (self.number - 1) * SPAN + 1

    @property
    def count(self) -> int:
        """How many sessions this run has had, this one included."""
        return self.number - self._began + 1

    @property
    def done(self) -> Summary | None:
        """The run's summary, if an earlier session finished all of it and there is nothing to do."""
        earlier = self._earlier
        if earlier is None or earlier.how != "finished":
            return None
        if earlier.fingerprint.grows != self._fingerprint.grows:
            return None
        summary = self.run_dir.read_summary()
        if summary is None or (self._retry_failed and summary["outcomes"].get(FAILED)):
            return None
        return summary

    def begin(self) -> list[str]:
        """Make the session's number durable; what a person should know of it. Blocks.

        Raises:
            SinkError: if the directory cannot be written.
        """
        told: list[str] = []
        if self._differs:
            self.run_dir.clear()
            told = [f"{self.run_dir.path} held another run, which had done nothing yet: it was removed"]
        self._started = time.monotonic()
        self._write("running", self.wall_seconds, self.cpu_seconds)
        earlier = self._earlier
        if earlier is None:
            return told
        told = [f"going on with the run in {self.run_dir.path}, session {self.number}"]
        if earlier.peerloom != version("peerloom"):
            told.append(f"the run was begun with Peerloom {earlier.peerloom}, this is {version('peerloom')}")
        return told

    def record_model(self, client: ClientSpec) -> None:
        """Note which model answers; the fingerprint has it only if the configuration names one. Blocks.

        Raises:
            ConfigError: if another one has worked on the run before.
            SinkError: if it could not be written down.
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
        """Take the failed rows back, if that is wanted, so that they are done again; how many. Blocks.

        Raises:
            SinkError: if a file could not be written.
            RunDirError: if one is damaged or missing.
        """
        if not self._retry_failed or self._earlier is None:
            return 0
        # One less than this session's members have, and more than any of an earlier session's.
        return len(withdraw_failed(self.run_dir.path, self.first - 1))

    def seconds(self) -> float:
        """Wall time of all sessions so far."""
        return self.wall_seconds + time.monotonic() - self._started

    def end_startup(self) -> None:
        """Note that tasks can be admitted from now on, unless they could before."""
        self._ready = self._ready or time.monotonic()
        self.run_dir.begun = True

    def startup_seconds(self) -> float:
        """Wall time of all sessions before their tasks could begin."""
        return self._earlier_startup + (self._ready or time.monotonic()) - self._started

    async def save_periodically(self, cpu_seconds: Callable[[], float]) -> None:
        """Write the figures down again and again, so that a session that is killed has cost something too."""
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            with contextlib.suppress(SinkError):  # a full disk is told of elsewhere
                await asyncio.to_thread(self.save, cpu_seconds())

    def save(self, cpu_seconds: float, how: How = "running") -> None:
        """Write the figures down: `cpu_seconds` of all sessions so far, and how this one ended. Blocks.

        Raises:
            SinkError: if they could not be written; the old ones are still there.
        """
        with self._writing:
            if not self._ended:
                self._ended = how != "running"
                self._write(how, self.seconds(), cpu_seconds)

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
                fingerprint=self._fingerprint,
            )
        )


def _refusal(run_dir: RunDir, found: list[str]) -> str:
    return (
        f"{run_dir.path} holds a run that differs from this one:\n"
        + "".join(f"  {line}\n" for line in found)
        + "Restore what differs to go on with it; or start over with --fresh (fresh=True in Python), "
        "which removes its rows and its journal; or choose another run directory (--run-dir, or run_dir=)"
    )
