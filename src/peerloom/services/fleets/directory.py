"""Read and write the directory of fleets: a small JSON file for each, which runs poll for changes.

A file is replaced atomically and holds no secret. The supervisor of a fleet (see `supervisor`) writes it at
every change and at every heartbeat. A file for servers that were not started by Peerloom can be written by
hand: `{"model": "m", "endpoints": [{"url": "http://host:8000/v1"}]}`.
"""

import os
import re
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec
import psutil

from peerloom.errors import ConfigError, ServiceError

HEARTBEAT_SECONDS = 5.0
SILENT_SECONDS = 30.0
"""The time without a heartbeat after which a supervisor on another machine counts as silent."""

SUPERVISOR_MARK = "PEERLOOM_FLEET_SUPERVISOR"
"""The environment variable that identifies the servers of a supervisor."""

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")
"""The valid names of fleets and adapters."""

State = Literal["starting", "up", "failed"]
Life = Literal["alive", "dead", "silent", "none"]
"""The state of a supervisor: running; ended; silent on another machine; or there never was one."""


class NoFleet(ServiceError):
    """No fleet has that name."""


class Listed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One endpoint of a fleet.

    Args:
        url: its base URL.
        state: the state of its server.
        place: its machine, if known; empty for the supervisor's.
        pid: its process id, if known.
        restarts: the number of restarts.
    """

    url: str
    state: Literal["starting", "up", "restarting", "lost", "stopped"] = "up"
    place: str = ""
    pid: int | None = None
    restarts: int = 0


class SupervisorProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A supervisor's process, with the time at which it began, since process ids are reused."""

    host: str
    pid: int
    began: float

    @property
    def mark(self) -> str:
        """The value of `SUPERVISOR_MARK` in the environment of its servers."""
        return f"{self.host}-{self.pid}-{self.began}"


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The content of a fleet's file.

    Args:
        model: the model's name in calls.
        endpoints: all endpoints; calls go to those that are up.
        engine: the name of the engine.
        name: the fleet's name.
        state: the state of the fleet.
        detail: the reason of a failure, or of a wait during the start.
        key: whether calls require a key.
        lora: whether LoRA adapters can be loaded, see `adapters`.
        ray: the address of the Ray cluster to clean up if the supervisor ends without doing so.
        supervisor: the supervisor's process.
        beat: the time of the supervisor's last write, in seconds since 1970.
        since: the time of the supervisor's start.
        log: the directory of the logs, on the supervisor's machine.
    """

    model: str
    endpoints: tuple[Listed, ...]
    engine: str = ""
    name: str = ""
    state: State = "up"
    detail: str = ""
    key: bool = False
    lora: bool = False
    ray: str | None = None
    supervisor: SupervisorProcess | None = None
    beat: float = 0.0
    since: float = 0.0
    log: str = ""

    @property
    def urls(self) -> tuple[str, ...]:
        """The base URLs of the endpoints that are up."""
        return tuple(endpoint.url for endpoint in self.endpoints if endpoint.state == "up")

    @property
    def life(self) -> Life:
        """The state of the supervisor."""
        supervisor = self.supervisor
        if supervisor is None:
            return "none"
        if supervisor.host != socket.gethostname():
            return "alive" if time.time() - self.beat < SILENT_SECONDS else "silent"
        return "alive" if is_running(supervisor.pid, supervisor.began) else "dead"


def directory() -> Path:
    """Return the directory of the fleets' files: `$PEERLOOM_FLEETS`, else `~/.peerloom/fleets`."""
    return Path(os.environ.get("PEERLOOM_FLEETS") or "~/.peerloom/fleets").expanduser()


def path_of(name: str) -> Path:
    """Return the file of a fleet, given its name or the path itself.

    Raises:
        ConfigError: if `name` is neither.
    """
    given = "/" in name or name.endswith(".json")
    path = Path(name).expanduser() if given else directory() / f"{name}.json"
    if not NAME.fullmatch(path.stem) or path.suffix != ".json":
        raise ConfigError(
            f"a fleet cannot be called {name!r}: use letters, digits, '-', '_' and '.', 64 at most, "
            "or the path of a .json file"
        )
    return path


def names() -> list[str]:
    """Return the names of the fleets in the directory."""
    try:
        return sorted(file.stem for file in directory().glob("*.json") if not file.name.startswith("."))
    except OSError:
        return []


def read(path: Path) -> Entry:
    """Read the file of a fleet.

    Raises:
        NoFleet: if the file does not exist.
        ServiceError: if the file cannot be read, or is not a fleet's.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Entry)
    except FileNotFoundError as error:
        there = ", ".join(names())
        raise NoFleet(
            f"there is no fleet {path.stem} ({path}); "
            + (f"there are: {there}. " if there else "")
            + "`peerloom serve up` starts one, PEERLOOM_FLEETS says where they are listed"
        ) from error
    except (OSError, msgspec.DecodeError) as error:
        raise ServiceError(f"the file of a fleet {path} cannot be read: {error}") from error


def write(path: Path, entry: Entry) -> None:
    """Replace the file of a fleet.

    Raises:
        ServiceError: if the file cannot be written.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(msgspec.json.format(msgspec.json.encode(entry), indent=2))
        scratch.replace(path)
    except OSError as error:
        with suppress(OSError):
            scratch.unlink()
        raise ServiceError(
            f"the file of a fleet {path} cannot be written: {error.strerror}; "
            "PEERLOOM_FLEETS chooses another directory"
        ) from error


def this_process() -> SupervisorProcess:
    """Return the identity of this process as a supervisor."""
    pid = os.getpid()
    began = psutil.Process(pid).create_time()
    return SupervisorProcess(host=socket.gethostname(), pid=pid, began=began)


def is_running(pid: int, began: float | None = None) -> bool:
    """Return whether a process is running, and has begun then."""
    try:
        process = psutil.Process(pid)
        same = began is None or abs(process.create_time() - began) < 1
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
