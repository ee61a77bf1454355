"""Serve the control of an active run to clients that know its token (`protocol`).

The commands are `status`, `pause`, `continue`, `drain`, `cancel`, and `set`. The address and the token are in
`.peerloom/control.json`, which only its user can read. A failure here causes a notice, and never affects the
run.
"""

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

from peerloom.control.protocol import REFUSED, WrongSignature, seal, unseal
from peerloom.control.status import StatusCollector
from peerloom.errors import ConfigError
from peerloom.events import Notice, RunStarted
from peerloom.runtime.driver.control import RunControl
from peerloom.services.secret import Secret
from peerloom.sink.errors import SinkError
from peerloom.sink.layout import CONTROL

MAX_REQUEST = 16 * 1024
MAX_CONNECTIONS = 64
"""The number of connections at once; anyone who reaches the server can open one."""
REQUEST_SECONDS = 5.0
"""The time a connection may take until its request is complete."""
_CLOSE_SECONDS = 1.0  # for answers under way at the end of the run


class Control(StatusCollector):
    """The control server of one run, which is also one of the run's hooks."""

    def __init__(self) -> None:
        super().__init__()
        self._started = asyncio.Event()
        self._token = Secret(secrets.token_hex(32))
        self._connections: set[asyncio.Task[None] | None] = set()

    def run_started(self, event: RunStarted) -> None:
        """Start serving: the run's address is known now."""
        super().run_started(event)
        self._started.set()

    @contextlib.asynccontextmanager
    async def serving(self, run: RunControl) -> AsyncGenerator[None]:
        """Serve inside the block, from the start of the run."""
        (run.session.run_dir.path / CONTROL).unlink(missing_ok=True)
        served = asyncio.create_task(self._serve(run))
        try:
            yield
        finally:
            served.cancel()
            await asyncio.wait((served,))
            error = None if served.cancelled() else served.exception()
            if error is not None:  # a failure of the control must not affect the run
                run.notify(Notice("error", f"the control server failed: {error!r}"))

    async def _serve(self, run: RunControl) -> None:
        await self._started.wait()
        run_dir = run.session.run_dir
        server: asyncio.Server | None = None
        try:
            server = await asyncio.start_server(partial(self._handle, run), run.address, 0, limit=MAX_REQUEST)
            run_dir.write(CONTROL, self._document(server.sockets[0].getsockname()), 0o600)
            await asyncio.Event().wait()
        except (OSError, SinkError) as error:
            run.notify(Notice("warning", f"peerloom ctl is not available for this run: {error}"))
        finally:
            (run_dir.path / CONTROL).unlink(missing_ok=True)
            if server is not None:
                server.close()
            if open_ones := [task for task in self._connections if task is not None]:
                _, late = await asyncio.wait(open_ones, timeout=_CLOSE_SECONDS)
                for task in late:
                    task.cancel()

    def _document(self, address: tuple[Any, ...]) -> dict[str, Any]:
        host, port = address[:2]
        return {
            "address": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            "token": self._token.reveal(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }

    async def _handle(
        self, run: RunControl, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer the request of one connection."""
        if len(self._connections) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        self._connections.add(task)
        try:
            with contextlib.suppress(OSError, ValueError):  # timeouts too; ValueError: a request is too long
                await self._converse(run, reader, writer)
                writer.close()
                await writer.wait_closed()
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _converse(
        self, run: RunControl, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        nonce = secrets.token_hex(16).encode() + b"\n"
        writer.write(nonce)
        async with asyncio.timeout(REQUEST_SECONDS):
            line = await reader.readline()
        try:
            request = unseal(self._token, "request", nonce, line)
        except WrongSignature:
            writer.write(REFUSED)
            return
        answer = await self._answer(run, request, str(writer.get_extra_info("peername")[0]))
        writer.write(seal(self._token, "answer", line, answer))

    async def _answer(self, run: RunControl, request: dict[str, Any], client: str) -> dict[str, Any]:
        verb = request["verb"]
        try:
            if verb == "status":
                return self.document(run)
            if run.state == "stopping":
                return {"told": "the run is already ending", "state": "stopping"}
            result = _execute(run, request, client)
            await run.wait_delivered()
        except ConfigError as error:
            return {"refused": str(error)}
        except Exception as error:
            # A request must not harm the run, not even if it triggers a bug.
            run.notify(Notice("error", f"ctl {verb} failed: {error!r}"))
            return {"failed": repr(error)}
        return {"told": result, "state": run.state}


def _execute(run: RunControl, request: dict[str, Any], client: str) -> str:
    """Execute a command, and return a description of its effect.

    The run itself issues a notice of a change; for other commands this function does.
    """
    changed, level = False, "info"
    match request:
        case {"verb": "pause"}:
            changed, result = run.pause("requested by peerloom ctl"), "paused; running turns finish"
        case {"verb": "continue"}:
            changed, result = run.unpause(), "continuing"
        case {"verb": "set", "key": str(key), "value": str(value)}:
            changed, result = run.adjust(key, value), f"{key} is {value}"
        case {"verb": "set"}:
            raise ConfigError('the request must be {"key": text, "value": text}')
        case {"verb": "drain"}:
            run.drain()
            level, result = "warning", "finishing the tasks in flight; no more are admitted"
        case {"verb": "cancel"}:
            run.abort()
            level, result = "warning", "stopping at once; rows written so far are kept"
        case _:
            raise ConfigError(f"there is no command {request['verb']!r}")
    if not changed:
        run.notify(Notice(level, f"ctl {request['verb']} from {client}: {result}"))
    return result
