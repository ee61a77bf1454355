"""Send requests to an active run, and read the last state of an ended one."""

import re
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from peerloom.control.protocol import REFUSED, WrongSignature, seal, unseal
from peerloom.errors import ConfigError, EngineError, RunDirError
from peerloom.services.secret import Secret
from peerloom.sink.layout import CONTROL, RUN_LOCK
from peerloom.sink.read import read_totals
from peerloom.sink.rundir.directory import in_use
from peerloom.sink.rundir.state import read_state, read_summary

TOKEN_VARIABLE = "PEERLOOM_CONTROL_TOKEN"
TIMEOUT_SECONDS = 10.0
_HOST_AND_PORT = re.compile(r"[\w.:\[\]-]+")
_MAX_NONCE, _MAX_ANSWER = 1024, 64 << 20


class NotRunning(EngineError):
    """No run answers: it has ended, was killed, or is still starting."""


@dataclass(frozen=True)
class Channel:
    """The address and token of an active run, and its directory if they were found there."""

    address: str
    token: Secret
    run_dir: Path | None = None

    def request(self, verb: str, content: dict[str, Any] | None = None) -> dict[str, Any]:
        """Request the status, or send a command, and return the answer.

        Raises:
            NotRunning: if the connection is refused.
            ConfigError: if the run rejects the command; the message has the reason.
            EngineError: if the run does not answer, or the answer is not signed with the token.
        """
        request = {"verb": verb, "nonce": secrets.token_hex(16), **(content or {})}
        try:
            with (
                socket.create_connection(_parse(self.address), TIMEOUT_SECONDS) as connection,
                connection.makefile("rwb") as stream,
            ):
                line = seal(self.token, "request", stream.readline(_MAX_NONCE), request)
                stream.write(line)
                stream.flush()
                answer = stream.readline(_MAX_ANSWER)
        except ConnectionRefusedError as error:
            raise NotRunning(_not_running(self.run_dir, self.address)) from error
        except OSError as error:
            raise EngineError(f"the run does not answer at {self.address}: {error!r}") from error
        if not answer:
            raise EngineError(f"the run does not answer at {self.address}: it closed the connection")
        if answer == REFUSED:
            raise EngineError(f"the run at {self.address} refuses: the token is not this run's")
        try:
            result: dict[str, Any] = unseal(self.token, "answer", line, answer)
        except WrongSignature as error:
            raise EngineError(
                f"the server at {self.address} is not this run: it does not know the token"
            ) from error
        if "refused" in result:
            raise ConfigError(result["refused"])
        if "failed" in result:
            raise EngineError(f"the run at {self.address} failed to {verb}: {result['failed']}")
        return result


def find(run_dir: Path | None = None, address: str | None = None) -> Channel:
    """Return the channel to a run, by its directory, or its address and `PEERLOOM_CONTROL_TOKEN`.

    Raises:
        NotRunning: if the directory's run is not active, or not reachable at present.
        RunDirError: if the directory holds no run, or one of another user.
        ConfigError: if not exactly one of them is given, the address is invalid, or the token is not set.
        EngineError: if the run is only reachable on another host.
    """
    if (run_dir is None) == (address is None):
        raise ConfigError("give either the run's directory or --address HOST:PORT")
    if address is not None:
        _parse(address)
        token = Secret.from_env(TOKEN_VARIABLE)
        if token is None:
            raise ConfigError(
                f"--address needs the run's token in {TOKEN_VARIABLE}; "
                f"it is in {CONTROL} in the run's directory"
            )
        return Channel(address, token)
    assert run_dir is not None
    _check_run(run_dir)
    try:
        if not in_use(run_dir):  # a killed run leaves a stale file
            raise NotRunning(_not_running(run_dir, ""))
        content: dict[str, str] = orjson.loads((run_dir / CONTROL).read_bytes())
        channel = Channel(content["address"], Secret(content["token"]), run_dir)
        host = content["host"]
    except FileNotFoundError:
        raise NotRunning(_not_running(run_dir, "")) from None
    except (OSError, orjson.JSONDecodeError, KeyError) as error:
        raise RunDirError(
            f"{run_dir / CONTROL} cannot be read: {error}. Only the user who started the run can read it"
        ) from error
    if channel.address.startswith("127.") and host != socket.gethostname():
        raise EngineError(f"the run in {run_dir} is only reachable on {host}: use peerloom ctl there")
    return channel


def last_state(run_dir: Path) -> dict[str, Any]:
    """Return the `state` and the figures of a run that does not answer, from its directory.

    `state` is `finished`, `drained`, `suspended` or `failed` after a regular end; `not running` if the driver
    was killed; `starting` if the directory is in use, but the run does not answer yet, or any more.

    Raises:
        RunDirError: if the directory holds no run, or its state cannot be read.
    """
    _check_run(run_dir)
    if in_use(run_dir):
        return {"state": "starting"}
    state = read_state(run_dir)
    if state is None or state.how == "running":
        totals = read_totals(run_dir)
        return {"state": "not running", "outcomes": dict(totals.outcomes), "reasons": dict(totals.reasons)}
    return {"state": state.how, **(read_summary(run_dir) or {})}


def _check_run(run_dir: Path) -> None:
    if not (run_dir / RUN_LOCK).is_file():
        raise RunDirError(f"{run_dir} contains no run of Peerloom")


def _not_running(run_dir: Path | None, address: str) -> str:
    """Return why the run does not answer, and a remedy."""
    if run_dir is None:
        return f"nothing answers at {address}: the run is not running"
    state = last_state(run_dir)["state"]
    if state == "starting":
        return f"the run in {run_dir} is starting or ending: try again in a moment"
    if state == "finished":
        return f"the run in {run_dir} is finished"
    return f"the run in {run_dir} is not running; resume it with `peerloom resume {run_dir}`"


def _parse(address: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or not _HOST_AND_PORT.fullmatch(address):
        raise ConfigError(f"--address {address}: must be HOST:PORT")
    return host, port
