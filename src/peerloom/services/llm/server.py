"""The simulated model behind HTTP: an OpenAI-compatible server that is never the bottleneck.

`POST /v1/chat/completions`, `GET /v1/models`, `GET /health`. What it says is `laws`, as in process; it
adds the waiting (a timer a call) and turns faults into what a client would see of them. To know how
often a request was tried, it counts the tries of those that failed, until they succeed.
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
from math import ceil
from pathlib import Path

import orjson
import uvloop

from peerloom.errors import ServiceError
from peerloom.services.llm.ask import Ask, BadRequest, read
from peerloom.services.llm.calllog import Call, CallLog
from peerloom.services.llm.http1 import Connection, Due, Request
from peerloom.services.llm.laws import Answer, Fault, Laws, answer, fault_of
from peerloom.services.llm.prose import prose
from peerloom.services.rlimit import allow_open_files

_SOCKETS = 65_536  # as many clients as the hard limit of open files lets in
_BACKLOG = 4096
_CLIENT_LEFT = 499


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """What to serve, and where. `port` 0 takes a free one; `log` gets a JSON line a call (`calllog.Call`)."""

    laws: Laws = field(default_factory=Laws)
    host: str = "127.0.0.1"
    port: int = 8000
    model: str = "simulated"
    log: Path | None = None


class SimulatedServer:
    """Answers requests by the laws of `config`. Writes its calls to `log`, if any."""

    def __init__(self, config: ServerConfig, log: CallLog | None) -> None:
        self._laws = config.laws
        self._model = config.model
        self._log = log
        self._faulty = any(rate for _, rate in config.laws.fault_rates)
        self._tries: dict[tuple[int, ...], int] = {}
        listed = {"object": "list", "data": [{"id": config.model, "object": "model", "owned_by": "peerloom"}]}
        self._routes: dict[bytes, tuple[bytes, Callable[[Request, Connection], None]]] = {
            b"/v1/chat/completions": (b"POST", self._chat),
            b"/v1/models": (b"GET", partial(_fixed, orjson.dumps(listed))),
            b"/health": (b"GET", partial(_fixed, b'{"status":"ok"}')),
        }

    def __call__(self, request: Request, connection: Connection) -> None:
        """Take one request."""
        method, handle = self._routes.get(request.path, (b"", None))
        if handle is None:
            known = ", ".join(path.decode() for path in self._routes)
            connection.reply(404, _error(f"no such path; there are {known}", "not_found"))
        elif method != request.method:
            connection.reply(405, _error(f"use {method.decode()}", "method_not_allowed"))
        else:
            handle(request, connection)

    def _chat(self, request: Request, connection: Connection) -> None:
        received = time.time()
        try:
            body = orjson.loads(request.body)
            ask = read(body, self._laws.seed)
            if body.get("stream"):
                raise BadRequest("stream is not supported")
            fault = self._fault(ask) if self._faulty else ""
            made = answer(ask, self._laws, truncated=fault == "truncation")
        except (BadRequest, orjson.JSONDecodeError) as error:
            code = error.code if isinstance(error, BadRequest) else "invalid_json"
            connection.reply(400, _error(str(error), code), due=self._noted(request, received, 400, None))
            return
        status, headers, payload, delay = self._outcome(fault, made, ask)
        counted = made if status == 200 else None
        due = self._noted(request, received, status, counted)
        connection.reply(status, payload, headers=headers, delay=delay, due=due)

    def _fault(self, ask: Ask) -> Fault:
        tries = self._tries.get(ask.draws, 0)
        fault = fault_of(ask, self._laws, tries)
        if fault in ("", "truncation"):
            self._tries.pop(ask.draws, None)
        else:
            self._tries[ask.draws] = tries + 1
        return fault

    def _outcome(self, fault: Fault, made: Answer, ask: Ask) -> tuple[int, bytes, bytes, float | None]:
        """Status, further headers, body and delay of the answer."""
        if fault == "429":
            wait = self._laws.retry_after
            headers = f"Retry-After: {ceil(wait)}\r\nretry-after-ms: {wait * 1000:.0f}\r\n".encode()
            return 429, headers, _error("simulated rate limit", "rate_limit_exceeded"), 0.0
        if fault == "5xx":
            return 503, b"", _error("simulated overload", "overloaded"), 0.0
        payload = _completion(made, self._model, ask)
        if fault == "garbage":
            payload = payload[: len(payload) // 2]
        return 200, b"", payload, None if fault == "hang" else made.seconds

    def _noted(self, request: Request, received: float, status: int, made: Answer | None) -> Due | None:
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


@asynccontextmanager
async def serving(config: ServerConfig) -> AsyncGenerator[int]:
    """Serve inside the block, in the running loop; gives the port.

    Raises:
        ServiceError: if the port is taken, or the log cannot be written.
    """
    log = CallLog(config.log) if config.log else None
    connections: set[Connection] = set()
    app = SimulatedServer(config, log)
    try:
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(
                lambda: Connection(app, connections), config.host, config.port, backlog=_BACKLOG
            )
        except OSError as error:
            raise ServiceError(
                f"cannot listen on {config.host}:{config.port} ({error.strerror}): choose another --port, "
                "or 0 for a free one"
            ) from error
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            if log:
                log.flush()  # with it go the replies that are due
            leaving = list(connections)
            for connection in leaving:
                connection.close()
            await asyncio.gather(*(connection.lost for connection in leaving))  # they note what they leave
            await server.wait_closed()
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


def _error(message: str, code: str) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": "simulated_error", "code": code}})


def _completion(made: Answer, model: str, ask: Ask) -> bytes:
    message = {"role": "assistant", "content": made.text}
    return orjson.dumps(
        {
            "id": f"chatcmpl-{ask.draws[0]:08x}{ask.draws[1]:08x}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": model,
            "choices": [{"index": 0, "message": message, "finish_reason": made.finish_reason}],
            "usage": {
                "prompt_tokens": made.prompt,
                "completion_tokens": made.completion,
                "total_tokens": made.prompt + made.completion,
                "prompt_tokens_details": {"cached_tokens": made.cached},
            },
        }
    )
