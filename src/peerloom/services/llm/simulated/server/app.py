"""The simulated model behind HTTP: an OpenAI-compatible server that is never the bottleneck.

`POST /v1/chat/completions` and `/v1/embeddings`, `GET /v1/models`, `/health` and `/stats`; with `admin` also
what `admin` lists. What it says is `laws`, as in process, and whom it refuses is `provider`; it adds the
waiting (a timer a call) and turns faults into what a client would see of them. To know how often a request
was tried, it counts the tries of those that failed, until they succeed.
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
from peerloom.services.llm.simulated.server.admin import Admin, Listener
from peerloom.services.llm.simulated.server.call_log import Call, CallLog
from peerloom.services.llm.simulated.server.http1 import Connection, Due, Request
from peerloom.services.llm.simulated.server.responses import Response, failure, spoilt, too_many
from peerloom.services.processes.rlimit import allow_open_files

_SOCKETS = 65_536  # as many clients as the hard limit of open files lets in
_BACKLOG = 4096
_CLIENT_LEFT = 499

Handle = Callable[[Request, Connection], None]


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """What to serve, and where.

    Args:
        laws: how the model behaves.
        host: the address to listen on.
        port: 0 takes a free one.
        model: its name.
        log: gets a JSON line a call, `calllog.Call`.
        admin: whether anyone who reaches it may make it fail, see `admin`.
    """

    laws: SimulatedBehavior = field(default_factory=SimulatedBehavior)
    host: str = "127.0.0.1"
    port: int = 8000
    model: str = "simulated"
    log: Path | None = None
    admin: bool = False


class Served(NamedTuple):
    """A request that was let in: its dice, what goes wrong, and what it gets."""

    draws: tuple[int, ...]
    fault: Fault
    made: SimulatedReply


class SimulatedServer:
    """Answers requests by the laws of `config`. Writes its calls to `log`, if any.

    Args:
        config: what to serve.
        log: of calls.
        connections: of its clients.
        clock: seconds, for limits and storms.
    """

    def __init__(
        self,
        config: ServerConfig,
        log: CallLog | None,
        connections: set[Connection] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = config.model
        self._log = log
        self._connections: set[Connection] = connections if connections is not None else set()
        self._clock = clock
        self._provider = SimulatedProvider(config.laws, clock())
        self._tries: dict[tuple[int, ...], int] = {}
        self.admin = Admin(self._provider, self._connections) if config.admin else None
        listed = {"object": "list", "data": [{"id": config.model, "object": "model", "owned_by": "peerloom"}]}
        self._routes: dict[bytes, tuple[bytes, Handle]] = {
            b"/v1/chat/completions": (b"POST", self._chat),
            b"/v1/embeddings": (b"POST", self._embed),
            b"/v1/models": (b"GET", partial(_fixed, orjson.dumps(listed))),
            b"/health": (b"GET", partial(_fixed, b'{"status":"ok"}')),
            b"/stats": (b"GET", self._stats),
            **(self.admin.routes if self.admin is not None else {}),
        }

    def __call__(self, request: Request, connection: Connection) -> None:
        """Take one request."""
        if self.admin is not None and self.admin.takes(request, connection):
            return
        method, handle = self._routes.get(request.path, (b"", None))
        if handle is None:
            known = ", ".join(path.decode() for path in self._routes)
            _send(connection, failure(404, f"no such path; there are {known}", "not_found"))
        elif method != request.method:
            _send(connection, failure(405, f"use {method.decode()}", "method_not_allowed"))
        else:
            handle(request, connection)

    def _chat(self, request: Request, connection: Connection) -> None:
        received = time.time()
        provider = self._provider
        try:
            body = orjson.loads(request.body)
            ask = read(body, provider.laws.seed)
            if body.get("stream"):
                raise BadRequest("stream is not supported")
            fault = self._fault(ask) if provider.faulty else ""
            made = provider.chat(ask, fault, self._clock())
        except (BadRequest, orjson.JSONDecodeError) as error:
            self._refuse(error, request, connection, received)
            return
        if isinstance(made, Refusal):
            self._turn_away(made, request, connection, received)
            return
        payload = orjson.dumps(bodies.completion(made, self._model, ask))
        self._answer(request, connection, received, Served(ask.draws, fault, made), payload)

    def _embed(self, request: Request, connection: Connection) -> None:
        received = time.time()
        provider = self._provider
        try:
            ask = read_embed(orjson.loads(request.body), provider.laws.seed)
            fault = self._fault(ask) if provider.faulty else ""
            made = provider.embed(ask, fault, self._clock())
        except (BadRequest, orjson.JSONDecodeError) as error:
            self._refuse(error, request, connection, received)
            return
        if isinstance(made, Refusal):
            self._turn_away(made, request, connection, received)
            return
        payload = orjson.dumps(bodies.embeddings(ask, self._model, provider.laws.seed))
        self._answer(request, connection, received, Served(ask.draws, fault, made), payload)

    def _fault(self, ask: SimulatedRequest | SimulatedEmbedRequest) -> Fault:
        return fault_of(ask, self._provider.laws, self._tries.get(ask.draws, 0))

    def _answer(
        self, request: Request, connection: Connection, received: float, served: Served, payload: bytes
    ) -> None:
        """Answer a request that was let in; whether it has succeeded shows only when the answer is sent."""
        draws, fault, made = served
        if not fault:
            note = self._noted(request, received, 200, made)
            connection.reply(200, payload, delay=made.seconds, due=partial(self._over, served, note))
            return
        self._tries[draws] = self._tries.get(draws, 0) + 1
        response = spoilt(fault, made, payload, self._provider.laws, draws[-1])
        note = self._noted(request, received, response.logged, made if response.kept else None)
        _send(connection, response, partial(self._over, served, note))

    def _over(self, served: Served, note: Due | None, send: Callable[[], None] | None) -> None:
        """A request that was let in is over: its answer is due (`send`), or its client has left (None)."""
        draws, fault, made = served
        if send is not None and self._tries and fault in REPLIES:
            self._tries.pop(draws, None)
        self._provider.over(fault, made if send is not None else None)
        if note is not None:
            note(send)
        elif send is not None:
            send()

    def _turn_away(self, refusal: Refusal, request: Request, connection: Connection, received: float) -> None:
        laws = self._provider.laws
        wait = laws.retry_after if refusal.seconds is None else refusal.seconds
        response = too_many(f"simulated rate limit: {REFUSED[refusal.reason]}", wait, laws.retry_after_as)
        _send(connection, response, self._noted(request, received, 429, None))

    def _refuse(self, error: ValueError, request: Request, connection: Connection, received: float) -> None:
        code = error.code if isinstance(error, BadRequest) else "invalid_json"
        _send(connection, failure(400, str(error), code), self._noted(request, received, 400, None))

    def _noted(
        self, request: Request, received: float, status: int, made: SimulatedReply | None
    ) -> Due | None:
        """What notes the call in the log, and sends the reply once that is written."""
        log = self._log
        if log is None:
            return None
        key = blake2b(request.body, digest_size=8).hexdigest()
        session = request.header(b"x-session-id").decode(errors="replace")
        tokens = (made.prompt, made.completion) if made else (0, 0)

        def note(send: Callable[[], None] | None) -> None:
            over, counted = (status, tokens) if send else (_CLIENT_LEFT, (0, 0))
            log.add(Call(time.time(), received, key, session, over, *counted), send)

        return note

    def _stats(self, request: Request, connection: Connection) -> None:
        others = [each for each in self._connections if each is not connection]
        counts = {
            **self._provider.stats(self._clock()),
            "in_flight": sum(each.busy for each in others),
            "open_connections": len(others),
        }
        connection.reply(200, orjson.dumps(counts))


@asynccontextmanager
async def serving(config: ServerConfig) -> AsyncGenerator[int]:
    """Serve inside the block, in the running loop; gives the port.

    Raises:
        ServiceError: if the port is taken, or the log cannot be written.
    """
    log = CallLog(config.log) if config.log else None
    connections: set[Connection] = set()
    app = SimulatedServer(config, log, connections)
    listener = Listener(lambda: Connection(app, connections), config.host, config.port, _BACKLOG)
    if app.admin is not None:
        app.admin.listener = listener
    try:
        await listener.open()
        try:
            yield listener.port
        finally:
            if app.admin is not None:
                app.admin.close()
            listener.shut()
            if log:
                log.flush()  # with it go the replies that are due
            leaving = list(connections)
            for connection in leaving:
                connection.close()
            await asyncio.gather(*(connection.lost for connection in leaving))  # they note what they leave
            await listener.closed()
    finally:
        if log:
            log.close()


async def serve(config: ServerConfig, *, announce: Callable[[str], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT. `announce` gets one line when it listens; default is to print it.

    Raises:
        ServiceError: as `serving`.
    """
    announce = announce or partial(print, flush=True)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with serving(config) as port:
        laws = config.laws
        announce(
            f"simulated LLM at http://{config.host}:{port}/v1"
            f" (model {config.model}, latency {laws.latency:g} s, seed {laws.seed})"
        )
        await stopped.wait()


def run_server(config: ServerConfig) -> None:
    """Serve, blocking, on a loop of its own, until SIGTERM or SIGINT.

    Raises:
        ServiceError: as `serving`.
    """
    allow_open_files(_SOCKETS)
    prose(1, 0)  # makes its passages
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)  # what a call makes is freed by counting; cycles are rare
    uvloop.run(serve(config))


def _fixed(body: bytes, request: Request, connection: Connection) -> None:
    connection.reply(200, body)


def _send(connection: Connection, response: Response, due: Due | None = None) -> None:
    connection.reply(
        response.status,
        response.payload,
        headers=response.headers,
        delay=response.delay,
        due=due,
        flaw=response.flaw,
    )
