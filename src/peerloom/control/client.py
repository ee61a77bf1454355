"""Send requests to an active run, and read the last state of an ended one."""

import http.client
import re
import socket
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import orjson

from peerloom.control.signing import NONCE, SIGNATURE, WINDOW_SECONDS, is_signed_answer, sign_request
from peerloom.errors import ConfigError, EngineError, RunDirError
from peerloom.services.secret import Secret
from peerloom.sink.layout import CONTROL, RUN_LOCK, SUMMARY
from peerloom.sink.read import read_totals
from peerloom.sink.rundir.directory import in_use
from peerloom.sink.rundir.state import read_state

TOKEN_VARIABLE = "PEERLOOM_CONTROL_TOKEN"
TIMEOUT_SECONDS = 10.0
_HOST_AND_PORT = re.compile(r"[\w.:\[\]-]+")
_MAX_ANSWER = 64 << 20


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
        method, path = "GET" if verb == "status" else "POST", f"/{verb}"
        body = b"" if content is None else orjson.dumps(content)
        headers = sign_request(self.token, method, path, body)
        try:
            status, answer, given = self._exchange(method, path, body, headers)
        except ConnectionRefusedError as error:
            raise NotRunning(_not_running(self.run_dir, self.address)) from error
        except (OSError, http.client.HTTPException) as error:
            raise EngineError(f"the run does not answer at {self.address}: {error!r}") from error
        if status == 401:
            raise EngineError(f"the run at {self.address} refuses: {_refusal(given.get('Date', ''))}")
        if not is_signed_answer(self.token, headers[NONCE], status, answer, given.get(SIGNATURE, "")):
            raise EngineError(f"what answers at {self.address} is not this run: it does not know the token")
        content = cast("dict[str, Any]", orjson.loads(answer))
        if status == 400:
            raise ConfigError(content["error"])
        if status != 200:
            raise EngineError(f"the run at {self.address} failed to {verb}: {content['error']}")
        return content

    def _exchange(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        host, port = _parse(self.address)
        connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
        try:
            connection.request(method, path, body, {**headers, "Connection": "close"})
            response = connection.getresponse()
            return response.status, response.read(_MAX_ANSWER), response.headers
        finally:
            connection.close()


def find(run_dir: Path | None = None, address: str | None = None) -> Channel:
    """Return the channel to a run, by its directory, or its address and `PEERLOOM_CONTROL_TOKEN`.

    Raises:
        NotRunning: if the directory's run is not active, or not reachable at present.
        RunDirError: if the directory holds no run, or one of another user.
        ConfigError: if the address is invalid, or the token is not set.
        EngineError: if the run is only reachable on another host.
    """
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
            f"{run_dir / CONTROL} cannot be read: {error}. Only who started the run can"
        ) from error
    if channel.address.startswith("127.") and host != socket.gethostname():
        raise EngineError(f"the run in {run_dir} has no other hosts than {host}: ask it there")
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
    try:
        summary: dict[str, Any] = orjson.loads((run_dir / SUMMARY).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        summary = {}
    return {"state": state.how, **summary}


def _check_run(run_dir: Path) -> None:
    if not (run_dir / RUN_LOCK).is_file():
        raise RunDirError(f"{run_dir} holds no run of Peerloom")


def _not_running(run_dir: Path | None, address: str) -> str:
    """Return why the run does not answer, and a remedy."""
    if run_dir is None:
        return f"nobody answers at {address}: the run is not running"
    state = last_state(run_dir)["state"]
    if state == "starting":
        return f"the run in {run_dir} is starting or ending: ask again in a moment"
    if state == "finished":
        return f"the run in {run_dir} is finished"
    return f"the run in {run_dir} is not running; `peerloom resume {run_dir}` goes on with it"


def _refusal(date: str) -> str:
    """Return the likely reason of a refusal, which the run does not send, from its clock."""
    try:
        skew = abs(parsedate_to_datetime(date).timestamp() - time.time())
    except ValueError:
        skew = 0.0
    if skew > WINDOW_SECONDS:
        return (
            f"the clocks of the two hosts are {skew:.0f} s apart, at most {WINDOW_SECONDS:.0f} s are allowed"
        )
    return "the token is not this run's"


def _parse(address: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or not _HOST_AND_PORT.fullmatch(address):
        raise ConfigError(f"--address {address}: must be HOST:PORT")
    return host, port
