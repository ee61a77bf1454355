"""Serve the simulated model over HTTP, as a fast OpenAI-compatible server.

The paths are `POST /v1/chat/completions`, `/v1/completions` and `/v1/embeddings`, `GET /v1/models` (also of
one model), `/health` and `/stats`, and with `admin` those of the module `admin`. Replies come from `behavior`
and refusals from `provider`, as in process; the server adds latencies (a timer per call) and sends responses
with their flaws.
"""

import asyncio
import gc
import signal
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import Path
from urllib.parse import unquote

import orjson
import uvloop

from peerloom.errors import ServiceError
from peerloom.services.llm.simulated.behavior import SimulatedBehavior
from peerloom.services.llm.simulated.prose import prose
from peerloom.services.llm.simulated.provider import AdmittedCall, Reader, SimulatedProvider
from peerloom.services.llm.simulated.request import read, read_completion, read_embed
from peerloom.services.llm.simulated.responses import PAGE, Response, failure, unknown_model
from peerloom.services.llm.simulated.server.admin import Admin
from peerloom.services.llm.simulated.server.call_log import Call, CallLog
from peerloom.services.llm.simulated.server.http1 import HttpRequest, ServerConnection
from peerloom.services.processes.rlimit import allow_open_files

_SOCKETS = 65_536  # bounded by the hard limit of open files
_BACKLOG = 4096
_MODELS = b"/v1/models/"
_CLIENT_LEFT = 499
_CLOSED = 444  # logged for a connection closed by a fault

Handle = Callable[[HttpRequest, ServerConnection], None]


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """The configuration of a simulated server.

    Args:
        behavior: the behavior of the model.
        host: the address to listen on.
        port: the port; 0 for a free one.
        model: the name of the model.
        log: the file for a JSON line per call; see `call_log.Call`.
        admin: whether any client may make the server fail; see `admin`.
        strict_model: whether calls of another model are refused.
    """

    behavior: SimulatedBehavior = field(default_factory=SimulatedBehavior)
    host: str = "127.0.0.1"
    port: int = 8000
    model: str = "simulated"
    log: Path | None = None
    admin: bool = False
    strict_model: bool = False


class SimulatedServer:
    """Handles the requests to a simulated model.

    Args:
        config: the configuration of the server.
        log: the log of calls, if any.
        clock: returns seconds, for limits and storms.
    """

    def __init__(
        self, config: ServerConfig, log: CallLog | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.port = config.port
        self._host = config.host
        self._log = log
        self._listening: asyncio.Server | None = None
        self._connections: set[ServerConnection] = set()
        self._clock = clock
        self._provider = SimulatedProvider(config.behavior, config.model, clock(), strict=config.strict_model)
        self._admin = None
        if config.admin:
            self._admin = Admin(self._provider, self._connections, self.listen, self.stop_listening)
        self._model = {"id": config.model, "object": "model", "created": 0, "owned_by": "peerloom"}
        models = {"object": "list", "data": [self._model]}
        self._routes: dict[bytes, tuple[bytes, Handle]] = {
            b"/v1/chat/completions": (b"POST", partial(self._call, read)),
            b"/v1/completions": (b"POST", partial(self._call, read_completion)),
            b"/v1/embeddings": (b"POST", partial(self._call, read_embed)),
            b"/v1/models": (b"GET", partial(_fixed, orjson.dumps(models))),
            b"/health": (b"GET", partial(_fixed, b'{"status":"ok"}')),
            b"/stats": (b"GET", self._stats),
            **(self._admin.routes if self._admin is not None else {}),
        }

    async def listen(self) -> None:
        """Start listening, again on the same port if it was closed.

        Raises:
            ServiceError: if the port is taken.
        """
        loop = asyncio.get_running_loop()
        try:
            self._listening = await loop.create_server(
                lambda: ServerConnection(self, self._connections), self._host, self.port, backlog=_BACKLOG
            )
        except OSError as error:
            raise ServiceError(
                f"cannot listen on {self._host}:{self.port} ({error.strerror}): choose another --port, "
                "or 0 for a free one"
            ) from error
        self.port = self._listening.sockets[0].getsockname()[1]

    def stop_listening(self) -> None:
        """Stop listening; open connections are kept."""
        if self._listening is not None:
            self._listening.close()

    async def close(self) -> None:
        """Stop listening, and close all connections."""
        if self._admin is not None:
            self._admin.close()
        self.stop_listening()
        remaining = list(self._connections)
        for connection in remaining:
            connection.close()
        await asyncio.gather(*(connection.lost for connection in remaining))  # these log unsent replies
        if self._listening is not None:
            await self._listening.wait_closed()

    def __call__(self, request: HttpRequest, connection: ServerConnection) -> None:
        """Handle one request."""
        if self._admin is not None and self._admin.intercept(request, connection):
            return
        method, handle = self._routes.get(request.path, (b"", None))
        if request.path.startswith(_MODELS):
            method, handle = b"GET", self._show_model
        if handle is None:
            known = ", ".join(path.decode() for path in self._routes)
            connection.reply(failure(404, f"no such path; there are {known}", "not_found"))
        elif method != request.method:
            connection.reply(failure(405, f"use {method.decode()}", "method_not_allowed"))
        else:
            handle(request, connection)

    def _call(self, read: Reader, request: HttpRequest, connection: ServerConnection) -> None:
        """Answer a call; `read` parses its body."""
        received = time.time()
        response, call = self._provider.respond(read, request.body, self._clock())

        def due(send: Callable[[], None] | None) -> None:
            """End the call: its response is due (`send`), or its client has disconnected (None)."""
            if call is not None:
                self._provider.finish(call, sent=send is not None)
            if self._log is not None:
                self._log.add(_log_entry(request, received, response, call, sent=send is not None))
            if send is not None:
                send()

        connection.reply(response, due)

    def _show_model(self, request: HttpRequest, connection: ServerConnection) -> None:
        name = unquote(request.path.removeprefix(_MODELS).decode(errors="replace"))
        known = name == self._model["id"]
        connection.reply(Response(200, orjson.dumps(self._model)) if known else unknown_model(name))

    def _stats(self, request: HttpRequest, connection: ServerConnection) -> None:
        others = [each for each in self._connections if each is not connection]
        counts = {
            **self._provider.stats(self._clock()),
            "in_flight": sum(each.busy for each in others),
            "open_connections": len(others),
        }
        connection.reply(Response(200, orjson.dumps(counts)))


@asynccontextmanager
async def serving(config: ServerConfig) -> AsyncGenerator[int]:
    """Serve inside the block, in the running loop; yields the port.

    Raises:
        ServiceError: if the port is taken, or the log cannot be written.
    """
    log = CallLog(config.log) if config.log else None
    server = SimulatedServer(config, log)
    try:
        await server.listen()
        try:
            yield server.port
        finally:
            await server.close()
    finally:
        if log:
            log.close()


async def serve(config: ServerConfig, *, announce: Callable[[str], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT. `announce` is called with one line once it listens; default is `print`.

    Raises:
        ServiceError: as for `serving`.
    """
    announce = announce or partial(print, flush=True)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with serving(config) as port:
        behavior = config.behavior
        announce(
            f"simulated LLM at http://{config.host}:{port}/v1"
            f" (model {config.model}, latency {behavior.latency:g} s, seed {behavior.seed})"
        )
        await stopped.wait()


def run_server(config: ServerConfig) -> None:
    """Serve in a new event loop until SIGTERM or SIGINT; blocks.

    Raises:
        ServiceError: as for `serving`.
    """
    allow_open_files(_SOCKETS)
    prose(1, 0)  # generates and caches its passages
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)  # calls create few reference cycles
    uvloop.run(serve(config))


def _fixed(body: bytes, request: HttpRequest, connection: ServerConnection) -> None:
    connection.reply(Response(200, body))


def _log_entry(
    request: HttpRequest, received: float, response: Response, call: AdmittedCall | None, *, sent: bool
) -> Call:
    whole = sent and response.status == 200 and not response.closed and response.body is not PAGE
    reply = call.reply if call is not None and whole else None
    return Call(
        t=time.time(),
        received=received,
        key=blake2b(request.body, digest_size=8).hexdigest(),
        session=request.header(b"x-session-id").decode(errors="replace"),
        status=(_CLOSED if response.closed else response.status) if sent else _CLIENT_LEFT,
        prompt_tokens=reply.prompt if reply is not None else 0,
        completion_tokens=reply.completion if reply is not None else 0,
    )
