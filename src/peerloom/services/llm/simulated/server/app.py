"""Serve the simulated model over HTTP, as a fast OpenAI-compatible server.

The paths are `POST /v1/chat/completions` and `/v1/embeddings`, `GET /v1/models`, `/health` and `/stats`, and
with `admin` those of the module `admin`. Replies come from `behavior` and refusals from `provider`, as in
process; the server adds latencies (a timer per call) and turns faults into responses. It counts the attempts
of failed requests until they succeed, to number the attempts.
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
from typing import NamedTuple

import orjson
import uvloop

from peerloom.services.llm.simulated import bodies
from peerloom.services.llm.simulated.behavior import (
    REPLIES,
    Fault,
    SimulatedBehavior,
    SimulatedReply,
    fault_of,
)
from peerloom.services.llm.simulated.prose import prose
from peerloom.services.llm.simulated.provider import REFUSED, SimulatedProvider
from peerloom.services.llm.simulated.quota import Refusal
from peerloom.services.llm.simulated.request import (
    BadRequest,
    SimulatedEmbedRequest,
    SimulatedRequest,
    read,
    read_embed,
)
from peerloom.services.llm.simulated.server.admin import Admin, ServerSocket
from peerloom.services.llm.simulated.server.call_log import Call, CallLog
from peerloom.services.llm.simulated.server.http1 import Due, HttpRequest, ServerConnection
from peerloom.services.llm.simulated.server.responses import Response, failure, too_many, with_fault
from peerloom.services.processes.rlimit import allow_open_files

_SOCKETS = 65_536  # bounded by the hard limit of open files
_BACKLOG = 4096
_CLIENT_LEFT = 499

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
    """

    behavior: SimulatedBehavior = field(default_factory=SimulatedBehavior)
    host: str = "127.0.0.1"
    port: int = 8000
    model: str = "simulated"
    log: Path | None = None
    admin: bool = False


class AdmittedRequest(NamedTuple):
    """An admitted request: its random draws, its fault and its reply."""

    draws: tuple[int, ...]
    fault: Fault
    reply: SimulatedReply


class SimulatedServer:
    """Handles the requests to a simulated model.

    Args:
        config: the configuration of the server.
        log: the log of calls, if any.
        connections: the open connections of clients.
        clock: returns seconds, for limits and storms.
    """

    def __init__(
        self,
        config: ServerConfig,
        log: CallLog | None,
        connections: set[ServerConnection] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = config.model
        self._log = log
        self._connections: set[ServerConnection] = connections if connections is not None else set()
        self._clock = clock
        self._provider = SimulatedProvider(config.behavior, clock())
        self._attempts: dict[tuple[int, ...], int] = {}
        self.admin = Admin(self._provider, self._connections) if config.admin else None
        models = {"object": "list", "data": [{"id": config.model, "object": "model", "owned_by": "peerloom"}]}
        self._routes: dict[bytes, tuple[bytes, Handle]] = {
            b"/v1/chat/completions": (b"POST", self._chat),
            b"/v1/embeddings": (b"POST", self._embed),
            b"/v1/models": (b"GET", partial(_fixed, orjson.dumps(models))),
            b"/health": (b"GET", partial(_fixed, b'{"status":"ok"}')),
            b"/stats": (b"GET", self._stats),
            **(self.admin.routes if self.admin is not None else {}),
        }

    def __call__(self, request: HttpRequest, connection: ServerConnection) -> None:
        """Handle one request."""
        if self.admin is not None and self.admin.intercept(request, connection):
            return
        method, handle = self._routes.get(request.path, (b"", None))
        if handle is None:
            known = ", ".join(path.decode() for path in self._routes)
            _send(connection, failure(404, f"no such path; there are {known}", "not_found"))
        elif method != request.method:
            _send(connection, failure(405, f"use {method.decode()}", "method_not_allowed"))
        else:
            handle(request, connection)

    def _chat(self, request: HttpRequest, connection: ServerConnection) -> None:
        received = time.time()
        provider = self._provider
        try:
            body = orjson.loads(request.body)
            parsed = read(body, provider.behavior.seed)
            if body.get("stream"):
                raise BadRequest("stream is not supported")
            fault = self._fault(parsed) if provider.faulty else ""
            reply = provider.chat(parsed, fault, self._clock())
        except (BadRequest, orjson.JSONDecodeError) as error:
            self._reject(error, request, connection, received)
            return
        if isinstance(reply, Refusal):
            self._refuse(reply, request, connection, received)
            return
        payload = orjson.dumps(bodies.completion(reply, self._model, parsed))
        self._answer(request, connection, received, AdmittedRequest(parsed.draws, fault, reply), payload)

    def _embed(self, request: HttpRequest, connection: ServerConnection) -> None:
        received = time.time()
        provider = self._provider
        try:
            parsed = read_embed(orjson.loads(request.body), provider.behavior.seed)
            fault = self._fault(parsed) if provider.faulty else ""
            reply = provider.embed(parsed, fault, self._clock())
        except (BadRequest, orjson.JSONDecodeError) as error:
            self._reject(error, request, connection, received)
            return
        if isinstance(reply, Refusal):
            self._refuse(reply, request, connection, received)
            return
        payload = orjson.dumps(bodies.embeddings(parsed, self._model, provider.behavior.seed))
        self._answer(request, connection, received, AdmittedRequest(parsed.draws, fault, reply), payload)

    def _fault(self, parsed: SimulatedRequest | SimulatedEmbedRequest) -> Fault:
        return fault_of(parsed, self._provider.behavior, self._attempts.get(parsed.draws, 0))

    def _answer(
        self,
        request: HttpRequest,
        connection: ServerConnection,
        received: float,
        admitted: AdmittedRequest,
        payload: bytes,
    ) -> None:
        """Answer an admitted request; it succeeds only when the response is sent."""
        draws, fault, reply = admitted
        if not fault:
            log = self._logging(request, received, 200, reply)
            connection.reply(200, payload, delay=reply.seconds, due=partial(self._finish, admitted, log))
            return
        self._attempts[draws] = self._attempts.get(draws, 0) + 1
        response = with_fault(fault, reply, payload, self._provider.behavior, draws[-1])
        log = self._logging(request, received, response.logged, reply if response.counted else None)
        _send(connection, response, partial(self._finish, admitted, log))

    def _finish(self, admitted: AdmittedRequest, log: Due | None, send: Callable[[], None] | None) -> None:
        """End an admitted request: its response is due (`send`), or its client has disconnected (None)."""
        draws, fault, reply = admitted
        if send is not None and self._attempts and fault in REPLIES:
            self._attempts.pop(draws, None)
        self._provider.finish(fault, reply if send is not None else None)
        if log is not None:
            log(send)
        elif send is not None:
            send()

    def _refuse(
        self, refusal: Refusal, request: HttpRequest, connection: ServerConnection, received: float
    ) -> None:
        behavior = self._provider.behavior
        wait = behavior.retry_after if refusal.seconds is None else refusal.seconds
        response = too_many(f"simulated rate limit: {REFUSED[refusal.reason]}", wait, behavior.retry_after_as)
        _send(connection, response, self._logging(request, received, 429, None))

    def _reject(
        self, error: ValueError, request: HttpRequest, connection: ServerConnection, received: float
    ) -> None:
        code = error.code if isinstance(error, BadRequest) else "invalid_json"
        _send(connection, failure(400, str(error), code), self._logging(request, received, 400, None))

    def _logging(
        self, request: HttpRequest, received: float, status: int, reply: SimulatedReply | None
    ) -> Due | None:
        """Return a callback that logs the call, and then sends the reply; None without a log."""
        log = self._log
        if log is None:
            return None
        key = blake2b(request.body, digest_size=8).hexdigest()
        session = request.header(b"x-session-id").decode(errors="replace")
        tokens = (reply.prompt, reply.completion) if reply else (0, 0)

        def due(send: Callable[[], None] | None) -> None:
            final, counted = (status, tokens) if send else (_CLIENT_LEFT, (0, 0))
            log.add(Call(time.time(), received, key, session, final, *counted), send)

        return due

    def _stats(self, request: HttpRequest, connection: ServerConnection) -> None:
        others = [each for each in self._connections if each is not connection]
        counts = {
            **self._provider.stats(self._clock()),
            "in_flight": sum(each.busy for each in others),
            "open_connections": len(others),
        }
        connection.reply(200, orjson.dumps(counts))


@asynccontextmanager
async def serving(config: ServerConfig) -> AsyncGenerator[int]:
    """Serve inside the block, in the running loop; yields the port.

    Raises:
        ServiceError: if the port is taken, or the log cannot be written.
    """
    log = CallLog(config.log) if config.log else None
    connections: set[ServerConnection] = set()
    app = SimulatedServer(config, log, connections)
    listener = ServerSocket(lambda: ServerConnection(app, connections), config.host, config.port, _BACKLOG)
    if app.admin is not None:
        app.admin.listener = listener
    try:
        await listener.open()
        try:
            yield listener.port
        finally:
            if app.admin is not None:
                app.admin.close()
            listener.close()
            if log:
                log.flush()  # also sends the replies that are due
            remaining = list(connections)
            for connection in remaining:
                connection.close()
            await asyncio.gather(*(connection.lost for connection in remaining))  # these log unsent replies
            await listener.wait_closed()
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
    connection.reply(200, body)


def _send(connection: ServerConnection, response: Response, due: Due | None = None) -> None:
    connection.reply(
        response.status,
        response.payload,
        headers=response.headers,
        delay=response.delay,
        due=due,
        flaw=response.flaw,
    )
