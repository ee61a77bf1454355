"""Asks a run that goes on, and reads what one that is over has left."""

import http.client
import re
import socket
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from peerloom.control.signing import NONCE, SIGNATURE, WINDOW_SECONDS, answers, sign_request
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
    """There is nobody to ask: the run is over, was killed, or has not begun to answer."""


@dataclass(frozen=True)
class Channel:
    """The way to a run that goes on; `run_dir` if it was found there."""

    address: str
    token: Secret
    run_dir: Path | None = None

    def ask(self, verb: str, content: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask for the status, or tell the run to do something; its answer.

        Raises:
            NotRunning: if nobody listens there.
            ConfigError: if the run cannot do it; the text says why.
            EngineError: if what answers does not know the token, or does not answer.
        """
        method, path = "GET" if verb == "status" else "POST", f"/{verb}"
        body = b"" if content is None else orjson.dumps(content)
        headers = sign_request(self.token, method, path, body)
        try:
            status, answer, given = self._exchange(method, path, body, headers)
        except ConnectionRefusedError as error:
            raise NotRunning(_why_silent(self.run_dir, self.address)) from error
        except (OSError, http.client.HTTPException) as error:
            raise EngineError(f"the run does not answer at {self.address}: {error!r}") from error
        if status == 401:
            raise EngineError(f"the run at {self.address} refuses: {_refusal(given.get('Date', ''))}")
        if not answers(self.token, headers[NONCE], status, answer, given.get(SIGNATURE, "")):
            raise EngineError(f"what answers at {self.address} is not this run: it does not know the token")
        told: dict[str, Any] = orjson.loads(answer)
        if status == 400:
            raise ConfigError(told["error"])
        if status != 200:
            raise EngineError(f"the run at {self.address} failed to {verb}: {told['error']}")
        return told

    def _exchange(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        where = _parse(self.address)
        connection = http.client.HTTPConnection(*where, timeout=TIMEOUT_SECONDS)
        try:
            connection.request(method, path, body, {**headers, "Connection": "close"})
            response = connection.getresponse()
            return response.status, response.read(_MAX_ANSWER), response.headers
        finally:
            connection.close()


def find(run_dir: Path | None = None, address: str | None = None) -> Channel:
    """The way to a run: by its directory, or by its address and the token in `PEERLOOM_CONTROL_TOKEN`.

    Raises:
        NotRunning: if the directory's run cannot be asked at present.
        RunDirError: if the directory holds no run, or one that is not this user's.
        ConfigError: if the address is none, or the token is not set.
        EngineError: if the run can only be asked on another host.
    """
    if address is not None:
        _parse(address)
        token = Secret.from_env(TOKEN_VARIABLE)
        if token is None:
            where = f"{CONTROL} in the run's directory"
            raise ConfigError(f"--address needs the run's token in {TOKEN_VARIABLE}; it is in {where}")
        return Channel(address, token)
    assert run_dir is not None
    _check_run(run_dir)
    try:
        if not in_use(run_dir):  # what a killed run has left tells of nobody who is still there
            raise NotRunning(_why_silent(run_dir, ""))
        content: dict[str, str] = orjson.loads((run_dir / CONTROL).read_bytes())
        channel = Channel(content["address"], Secret(content["token"]), run_dir)
        host = content["host"]
    except FileNotFoundError:
        raise NotRunning(_why_silent(run_dir, "")) from None
    except (OSError, orjson.JSONDecodeError, KeyError) as error:
        raise RunDirError(
            f"{run_dir / CONTROL} cannot be read: {error}. Only who started the run can"
        ) from error
    if channel.address.startswith("127.") and host != socket.gethostname():
        raise EngineError(f"the run in {run_dir} has no other hosts than {host}: ask it there")
    return channel


def last_state(run_dir: Path) -> dict[str, Any]:
    """What the directory of a run that cannot be asked tells: `state` and its figures.

    `state` is `finished`, `drained` or `failed` after an orderly end; `not running` if its driver was
    killed; `starting` if somebody has the directory, but does not answer yet or any more.

    Raises:
        RunDirError: if the directory holds no run, or what it knows of it cannot be read.
    """
    _check_run(run_dir)
    if in_use(run_dir):
        return {"state": "starting"}
    left = read_state(run_dir)
    if left is None or left.how == "running":
        totals = read_totals(run_dir)
        return {"state": "not running", "outcomes": dict(totals.outcomes), "reasons": dict(totals.reasons)}
    try:
        summary: dict[str, Any] = orjson.loads((run_dir / SUMMARY).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        summary = {}
    return {"state": left.how, **summary}


def _check_run(run_dir: Path) -> None:
    if not (run_dir / RUN_LOCK).is_file():
        raise RunDirError(f"{run_dir} holds no run of Peerloom")


def _why_silent(run_dir: Path | None, address: str) -> str:
    """Why nobody can be asked, and what can be done."""
    if run_dir is None:
        return f"nobody answers at {address}: the run is not running"
    state = last_state(run_dir)["state"]
    if state == "starting":
        return f"the run in {run_dir} is starting or ending: ask again in a moment"
    if state == "finished":
        return f"the run in {run_dir} is finished"
    return f"the run in {run_dir} is not running; `peerloom resume {run_dir}` goes on with it"


def _refusal(date: str) -> str:
    """Why a request may have been refused; the run does not say, but its clock can be seen."""
    try:
        apart = abs(parsedate_to_datetime(date).timestamp() - time.time())
    except ValueError:
        apart = 0.0
    if apart > WINDOW_SECONDS:
        return (
            f"the clocks of the two hosts are {apart:.0f} s apart, at most {WINDOW_SECONDS:.0f} s are allowed"
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
