"""Serve the control of an active run over HTTP.

The requests are `GET /status` and `POST /pause|continue|drain|cancel|set`; they and their answers are signed
(`signing`). The address and the run's token are in `control.json`, which only its user can read. A failure
here causes a notice, and never affects the run.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import socket
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any, cast

import orjson
from aiohttp import web

from peerloom.connection_limit import ConnectionLimit
from peerloom.control.signing import SIGNATURE, Refused, RequestVerifier, sign_answer
from peerloom.control.status import StatusCollector
from peerloom.errors import ConfigError
from peerloom.events import Notice, RunStarted
from peerloom.runtime.driver.run import Run
from peerloom.services.secret import Secret
from peerloom.sink.errors import SinkError
from peerloom.sink.rundir.directory import RunDir

MAX_BODY = 16 * 1024


class _BadRequest(Exception):
    """A request that cannot be executed, with the status and the message of the answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Control(StatusCollector):
    """The control server of one run, which is also one of the run's hooks."""

    def __init__(self) -> None:
        super().__init__()
        self._started = asyncio.Event()
        self._token = Secret(secrets.token_hex(32))
        self._verifier = RequestVerifier(self._token)

    def run_started(self, event: RunStarted) -> None:
        """Start serving: the run's address is known now."""
        super().run_started(event)
        self._started.set()

    @contextlib.asynccontextmanager
    async def serving(self, run: Run, run_dir: RunDir) -> AsyncGenerator[None]:
        """Serve inside the block, from the start of the run."""
        run_dir.remove_control()
        served = asyncio.create_task(self._serve(run, run_dir))
        try:
            yield
        finally:
            served.cancel()
            await asyncio.wait((served,))
            error = None if served.cancelled() else served.exception()
            if error is not None:  # a failure of the control must not affect the run
                run.tell(Notice("error", f"control from elsewhere failed: {error!r}"))

    async def _serve(self, run: Run, run_dir: RunDir) -> None:
        await self._started.wait()
        app = web.Application(client_max_size=MAX_BODY)
        limit = ConnectionLimit()
        app.router.add_route("*", "/{path:.*}", _Handler(self, run, limit).handle)
        runner = web.AppRunner(
            app, access_log=None, logger=_silent(), handle_signals=False, shutdown_timeout=1
        )
        server: asyncio.Server | None = None
        try:
            await runner.setup()
            assert runner.server is not None
            protocol = partial(limit.protocol, runner.server)
            server = await asyncio.get_running_loop().create_server(protocol, run.address(), 0)
            run_dir.write_control(self._document(server.sockets[0].getsockname()))
            await asyncio.Event().wait()
        except (OSError, SinkError) as error:
            run.tell(Notice("warning", f"the run cannot be controlled from elsewhere: {error}"))
        finally:
            run_dir.remove_control()
            if server is not None:
                server.close()
            await runner.cleanup()

    def admit(self, request: web.Request, body: bytes) -> str:
        """Return the nonce of a valid request. Raises `Refused`."""
        return self._verifier.admit(request.method, request.raw_path, body, request.headers)

    def answer(self, nonce: str, status: int, content: Any) -> web.Response:
        """Return a signed answer."""
        body = orjson.dumps(content)
        headers = {SIGNATURE: sign_answer(self._token, nonce, status, body)}
        response = web.Response(status=status, body=body, headers=headers, content_type="application/json")
        response.force_close()
        return response

    def _document(self, address: tuple[Any, ...]) -> bytes:
        host, port = address[:2]
        content = {
            "address": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            "token": self._token.reveal(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
        return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


class _Handler:
    """Handler of the requests to one run."""

    def __init__(self, control: Control, run: Run, limit: ConnectionLimit) -> None:
        self._control = control
        self._run = run
        self._limit = limit

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one request."""
        try:
            body = await request.read()
            nonce = self._control.admit(request, body)
        except Refused:
            return web.Response(status=401)
        self._limit.cancel_timeout(request.transport)
        try:
            status, content = 200, await self._result(request, body)
        except ConfigError as error:
            status, content = 400, {"error": str(error)}
        except _BadRequest as error:
            status, content = error.status, {"error": str(error)}
        except Exception as error:
            # A request must not harm the run, not even if it triggers a bug.
            self._run.tell(Notice("error", f"ctl {request.path} failed: {error!r}"))
            status, content = 500, {"error": repr(error)}
        return self._control.answer(nonce, status, content)

    async def _result(self, request: web.Request, body: bytes) -> dict[str, Any]:
        verb = request.path.removeprefix("/")
        if request.method == "GET" and verb == "status":
            return self._control.document(self._run)
        if request.method != "POST":
            raise _BadRequest(404, "no such request")
        if self._run.state == "stopping":
            return {"told": "the run is ending already", "state": "stopping"}
        result = self._execute(verb, body, request.remote or "elsewhere")
        await self._run.heard()
        return {"told": result, "state": self._run.state}

    def _execute(self, verb: str, body: bytes, client: str) -> str:
        """Execute a command, and return a description of its effect.

        The run itself issues a notice of a change; for other commands this method does.
        """
        run = self._run
        match verb:
            case "pause":
                changed, result = run.pause("asked for by peerloom ctl"), "paused; turns under way finish"
            case "continue":
                changed, result = run.unpause(), "going on"
            case "set":
                key, value = _setting(body)
                changed, result = run.adjust(key, value), f"{key} is {value}"
            case "drain":
                run.drain()
                changed, result = False, "finishing the tasks in flight; no more are admitted"
            case "cancel":
                run.abort()
                changed, result = False, "stopping at once; rows written so far are kept"
            case _:
                raise _BadRequest(404, f"there is no command {verb!r}")
        if not changed:
            level = "warning" if verb in ("drain", "cancel") else "info"
            self._run.tell(Notice(level, f"ctl {verb} from {client}: {result}"))
        return result


def _setting(body: bytes) -> tuple[str, str]:
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _BadRequest(400, f"the request is no JSON: {error}") from error
    given = cast("dict[str, Any]", content) if isinstance(content, dict) else {}
    key, value = given.get("key"), given.get("value")
    if not isinstance(key, str) or not isinstance(value, str):
        raise _BadRequest(400, 'the request must be {"key": text, "value": text}')
    return key, value


def _silent() -> logging.Logger:
    """Return a logger that drops the server's messages on malformed requests, which any client can send."""
    logger = logging.Logger("peerloom.control")
    logger.addHandler(logging.NullHandler())
    return logger
