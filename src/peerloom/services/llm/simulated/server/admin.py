"""How a test makes a simulated server fail while it runs: `POST` to one of these paths.

`/admin/pause`: it answers 503, and does not work. `/admin/die`: its connections break off, and whoever
connects is cut off without a word; with `{"seconds": 2}` it does not even listen for so long, then is back.
`/admin/revive`: it is well again. `/admin/laws`: the laws named in the body change, e.g. `{"rate_5xx": 0.5}`.
"""

import asyncio
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, Literal, cast

import orjson

from peerloom.errors import ConfigError, ServiceError
from peerloom.services.llm.simulated import bodies
from peerloom.services.llm.simulated.behavior import SimulatedBehavior
from peerloom.services.llm.simulated.provider import SimulatedProvider
from peerloom.services.llm.simulated.server.http1 import Connection, Request

CHANGEABLE = frozenset(
    {
        *(field.name for field in fields(SimulatedBehavior) if field.name.startswith("rate_")),
        *("latency", "latency_sigma", "tokens_per_second", "slow_seconds", "retry_after"),
    }
)
"""Laws that may change at run time: what is said stays the same, as do the limits."""

_PREFIX = b"/admin/"
_SOON = 0.01  # seconds: the answer to `die` goes out before


class Listener:
    """A server's listening socket, which can be shut and opened again at the same port.

    Args:
        factory: makes a connection's protocol.
        host: the address to listen on.
        port: 0 takes a free one.
        backlog: connections that may wait to be accepted.
    """

    def __init__(
        self, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int, backlog: int
    ) -> None:
        self._factory = factory
        self._host = host
        self.port = port
        self._backlog = backlog
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen.

        Raises:
            ServiceError: if the port is taken.
        """
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                self._factory, self._host, self.port, backlog=self._backlog
            )
        except OSError as error:
            raise ServiceError(
                f"cannot listen on {self._host}:{self.port} ({error.strerror}): choose another --port, "
                "or 0 for a free one"
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]

    def shut(self) -> None:
        """Listen no more; connections stay."""
        if self._server is not None:
            self._server.close()

    async def closed(self) -> None:
        """Wait until it is shut."""
        if self._server is not None:
            await self._server.wait_closed()


class Admin:
    """The state of a server, and the paths that change it. `listener` is set once there is one."""

    listener: Listener | None = None

    def __init__(self, provider: SimulatedProvider, connections: set[Connection]) -> None:
        self._provider = provider
        self._connections = connections
        self._state: Literal["", "paused", "dead"] = ""
        self._reopening: asyncio.Task[None] | None = None
        self.routes: dict[bytes, tuple[bytes, Callable[[Request, Connection], None]]] = {
            b"/admin/pause": (b"POST", self._pause),
            b"/admin/die": (b"POST", self._die),
            b"/admin/revive": (b"POST", self._revive),
            b"/admin/laws": (b"POST", self._laws),
        }

    def takes(self, request: Request, connection: Connection) -> bool:
        """Whether the server is out of order; then the request is dealt with."""
        if not self._state or request.path.startswith(_PREFIX):
            return False
        if self._state == "dead":
            connection.close()
        else:
            connection.reply(503, orjson.dumps(bodies.error("the server is paused", "paused")))
        return True

    def close(self) -> None:
        """The server stops: it does not come back."""
        if self._reopening is not None:
            self._reopening.cancel()

    def _pause(self, request: Request, connection: Connection) -> None:
        self._state = "paused"
        self._done(connection)

    def _revive(self, request: Request, connection: Connection) -> None:
        self._state = ""
        self._done(connection)

    def _die(self, request: Request, connection: Connection) -> None:
        body = _object(request)
        seconds = body.get("seconds") if body is not None else None
        if body is None or not (seconds is None or (isinstance(seconds, int | float) and seconds > 0)):
            _refuse(connection, "the body must be empty, or a JSON object with seconds, a number above 0")
            return
        self._state = "dead"
        self._done(connection)
        asyncio.get_running_loop().call_later(_SOON, self._break_off, seconds)

    def _break_off(self, seconds: float | None) -> None:
        if seconds is not None and self.listener is not None:
            self.listener.shut()
            self._reopening = asyncio.create_task(self._reopen(self.listener, seconds))
        for connection in list(self._connections):
            connection.close()

    async def _reopen(self, listener: Listener, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await listener.open()
        self._state = ""

    def _laws(self, request: Request, connection: Connection) -> None:
        body = _object(request)
        if body is None or not body.keys() <= CHANGEABLE:
            _refuse(connection, f"the body must be a JSON object of some of {', '.join(sorted(CHANGEABLE))}")
            return
        try:
            self._provider.obey(replace(self._provider.laws, **body))
        except (ConfigError, TypeError) as error:
            _refuse(connection, str(error))
            return
        self._done(connection)

    def _done(self, connection: Connection) -> None:
        connection.reply(200, orjson.dumps({"state": self._state or "up"}))


def _object(request: Request) -> dict[str, Any] | None:
    """The JSON object in a body, which may be empty; None if it is anything else."""
    try:
        body = orjson.loads(request.body or b"{}")
    except orjson.JSONDecodeError:
        return None
    return cast("dict[str, Any]", body) if isinstance(body, dict) else None


def _refuse(connection: Connection, message: str) -> None:
    connection.reply(400, orjson.dumps(bodies.error(message, "invalid_request_error")))
