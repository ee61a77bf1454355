"""Make a running simulated server fail, for tests, by `POST` requests.

`/admin/pause`: answer all requests with 503. `/admin/die`: close all connections, and close new ones without
a response; with `{"seconds": 2}`, do not listen for this time, and then recover. `/admin/revive`: recover.
`/admin/laws`: change the options in the body, e.g. `{"rate_5xx": 0.5}`.
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
from peerloom.services.llm.simulated.server.http1 import HttpRequest, ServerConnection

CHANGEABLE = frozenset(
    {
        *(field.name for field in fields(SimulatedBehavior) if field.name.startswith("rate_")),
        *("latency", "latency_sigma", "tokens_per_second", "slow_seconds", "retry_after"),
    }
)
"""The options that may change at run time; they affect neither the content of replies nor the limits."""

_PREFIX = b"/admin/"
_DELAY = 0.01  # seconds until connections are closed, so that the response to `die` is sent before


class ServerSocket:
    """The listening socket of a server, which can be closed and opened again on the same port.

    Args:
        factory: creates the protocol of a connection.
        host: the address to listen on.
        port: the port; 0 for a free one.
        backlog: the number of connections that may wait to be accepted.
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
        """Start listening.

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

    def close(self) -> None:
        """Stop listening; open connections are kept."""
        if self._server is not None:
            self._server.close()

    async def wait_closed(self) -> None:
        """Wait until the socket is closed."""
        if self._server is not None:
            await self._server.wait_closed()


class Admin:
    """The state of a server, and the handlers of the paths that change it. Set `listener` once it is open."""

    listener: ServerSocket | None = None

    def __init__(self, provider: SimulatedProvider, connections: set[ServerConnection]) -> None:
        self._provider = provider
        self._connections = connections
        self._state: Literal["", "paused", "dead"] = ""
        self._reopening: asyncio.Task[None] | None = None
        self.routes: dict[bytes, tuple[bytes, Callable[[HttpRequest, ServerConnection], None]]] = {
            b"/admin/pause": (b"POST", self._pause),
            b"/admin/die": (b"POST", self._die),
            b"/admin/revive": (b"POST", self._revive),
            b"/admin/laws": (b"POST", self._set_options),
        }

    def intercept(self, request: HttpRequest, connection: ServerConnection) -> bool:
        """Handle a request if the server is paused or dead; return whether it was handled."""
        if not self._state or request.path.startswith(_PREFIX):
            return False
        if self._state == "dead":
            connection.close()
        else:
            connection.reply(503, orjson.dumps(bodies.error("the server is paused", "paused")))
        return True

    def close(self) -> None:
        """Cancel the recovery of a server that stops."""
        if self._reopening is not None:
            self._reopening.cancel()

    def _pause(self, request: HttpRequest, connection: ServerConnection) -> None:
        self._state = "paused"
        self._done(connection)

    def _revive(self, request: HttpRequest, connection: ServerConnection) -> None:
        self._state = ""
        self._done(connection)

    def _die(self, request: HttpRequest, connection: ServerConnection) -> None:
        body = _object(request)
        seconds = body.get("seconds") if body is not None else None
        if body is None or not (seconds is None or (isinstance(seconds, int | float) and seconds > 0)):
            _refuse(connection, "the body must be empty, or a JSON object with seconds, a number above 0")
            return
        self._state = "dead"
        self._done(connection)
        asyncio.get_running_loop().call_later(_DELAY, self._close_connections, seconds)

    def _close_connections(self, seconds: float | None) -> None:
        if seconds is not None and self.listener is not None:
            self.listener.close()
            self._reopening = asyncio.create_task(self._reopen(self.listener, seconds))
        for connection in list(self._connections):
            connection.close()

    async def _reopen(self, listener: ServerSocket, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await listener.open()
        self._state = ""

    def _set_options(self, request: HttpRequest, connection: ServerConnection) -> None:
        body = _object(request)
        if body is None or not body.keys() <= CHANGEABLE:
            _refuse(connection, f"the body must be a JSON object of some of {', '.join(sorted(CHANGEABLE))}")
            return
        try:
            self._provider.update_behavior(replace(self._provider.behavior, **body))
        except (ConfigError, TypeError) as error:
            _refuse(connection, str(error))
            return
        self._done(connection)

    def _done(self, connection: ServerConnection) -> None:
        connection.reply(200, orjson.dumps({"state": self._state or "up"}))


def _object(request: HttpRequest) -> dict[str, Any] | None:
    """Return the JSON object in a body, an empty one for an empty body, or None for any other body."""
    try:
        body = orjson.loads(request.body or b"{}")
    except orjson.JSONDecodeError:
        return None
    return cast("dict[str, Any]", body) if isinstance(body, dict) else None


def _refuse(connection: ServerConnection, message: str) -> None:
    connection.reply(400, orjson.dumps(bodies.error(message, "invalid_request_error")))
