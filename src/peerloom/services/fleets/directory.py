"""The directory of fleets: a small JSON file for each, which whoever uses the fleet reads and follows.

A file is replaced as a whole, so a reader never sees half of one, and has no secret in it. The keeper of a
fleet (`peerloom serve up`) writes it at every change and at every heartbeat; one for servers that others run
can be written by hand: `{"model": "m", "endpoints": [{"url": "http://host:8000/v1"}]}`.
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

BEAT_SECONDS = 5.0
SILENT_SECONDS = 30.0
"""A keeper on another machine that has not written for so long is taken for dead."""

KEEPER_MARK = "PEERLOOM_KEEPER"
"""The environment variable by which the servers of a keeper are told from others."""

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")
"""Of fleets, and of their adapters."""

_BOOT = Path("/proc/sys/kernel/random/boot_id")

State = Literal["starting", "up", "failed"]
Life = Literal["alive", "dead", "silent", "none"]
"""Of a keeper: there; gone; on another machine, and not heard of; or there never was one."""


class NoFleet(ServiceError):
    """There is no fleet of that name."""


class Listed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One endpoint: its base URL, how it is, its machine and process where these are known."""

    url: str
    state: Literal["starting", "up", "restarting", "lost", "stopped"] = "up"
    place: str = ""
    pid: int | None = None
    restarts: int = 0


class KeptBy(msgspec.Struct, frozen=True, kw_only=True):
    """The process that keeps a fleet, told apart from any other, also after a reboot."""

    host: str
    boot: str
    pid: int
    began: float

    @property
    def mark(self) -> str:
        """What its servers have in their environment, as `KEEPER_MARK`."""
        return f"{self.boot}-{self.pid}-{self.began}"


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the directory says of a fleet.

    Args:
        model: what it is called in calls.
        endpoints: all there are; calls go to those that are up.
        engine: what serves it.
        name: the fleet's.
        state: of the whole.
        detail: why it failed, or what it waits for while it starts.
        key: whether calls have to show a key.
        lora: whether LoRA adapters can be loaded, see `adapters`.
        ray: the cluster that has to be asked to end it, if its keeper is gone without having done so.
        keeper: who keeps it.
        beat: when this was last written by the keeper, in seconds since 1970.
        since: when the keeper began.
        log: the directory of its logs, on the keeper's machine.
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
    keeper: KeptBy | None = None
    beat: float = 0.0
    since: float = 0.0
    log: str = ""

    @property
    def urls(self) -> tuple[str, ...]:
        """Base URLs of the endpoints that are up."""
        return tuple(endpoint.url for endpoint in self.endpoints if endpoint.state == "up")

    @property
    def life(self) -> Life:
        """Whether its keeper is there."""
        keeper = self.keeper
        if keeper is None:
            return "none"
        if keeper.host != socket.gethostname():
            return "alive" if time.time() - self.beat < SILENT_SECONDS else "silent"
        return "alive" if keeper.boot == _boot() and _is_process(keeper) else "dead"


def directory() -> Path:
    """Where the files of fleets are: `$PEERLOOM_FLEETS`, else `~/.peerloom/fleets`."""
    return Path(os.environ.get("PEERLOOM_FLEETS") or "~/.peerloom/fleets").expanduser()


def path_of(name: str) -> Path:
    """The file of a fleet, by its name or by the file's own path.

    Raises:
        ConfigError: if it can be neither.
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
    """The fleets in the directory."""
    try:
        return sorted(file.stem for file in directory().glob("*.json") if not file.name.startswith("."))
    except OSError:
        return []


def read(path: Path) -> Entry:
    """What a file says.

    Raises:
        NoFleet: if there is none.
        ServiceError: if it cannot be read, or says something else.
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
    """Replace what a file says.

    Raises:
        ServiceError: if it cannot be written.
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


def this_process() -> KeptBy:
    """This process as a keeper."""
    pid = os.getpid()
    return KeptBy(host=socket.gethostname(), boot=_boot(), pid=pid, began=psutil.Process(pid).create_time())


def _boot() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""


def _is_process(keeper: KeptBy) -> bool:
    try:
        process = psutil.Process(keeper.pid)
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - keeper.began) < 1
    except psutil.Error:
        return False
