"""Make a running simulated server fail, for tests, by `POST` requests.

`/admin/pause`: answer all requests with 503. `/admin/die`: close all connections, and close new ones without
a response; with `{"seconds": 2}`, do not listen for this time, and then recover. `/admin/revive`: recover.
`/admin/behavior`: change the options in the body, e.g. `{"rate_5xx": 0.5}`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any, Literal

import orjson

from peerloom.errors import ConfigError
from peerloom.services.llm.simulated.behavior import SimulatedBehavior
from peerloom.services.llm.simulated.provider import SimulatedProvider
from peerloom.services.llm.simulated.responses import Response, failure
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


class Admin:
    """The state of a server, and the handlers of the paths that change it.

    Args:
        provider: the simulated provider.
        connections: the open connections of clients.
        listen: starts listening on the port of the server.
        stop_listening: stops listening.
    """

    def __init__(
        self,
        provider: SimulatedProvider,
        connections: set[ServerConnection],
        listen: Callable[[], Awaitable[None]],
        stop_listening: Callable[[], None],
    ) -> None:
        self._provider = provider
        self._connections = connections
        self._listen = listen
        self._stop_listening = stop_listening
        self._state: Literal["", "paused", "dead"] = ""
        self._reopening: asyncio.Task[None] | None = None
        commands = {b"pause": self._pause, b"die": self._die, b"revive": self._revive}
        self.routes = {
            _PREFIX + name: (b"POST", partial(self._obey, command))
            for name, command in {**commands, b"behavior": self._set_options}.items()
        }

    def intercept(self, request: HttpRequest, connection: ServerConnection) -> bool:
        """Handle a request if the server is paused or dead; return whether it was handled."""
        if not self._state or request.path.startswith(_PREFIX):
            return False
        if self._state == "dead":
            connection.close()
        else:
            connection.reply(failure(503, "the server is paused", "paused"))
        return True

    def close(self) -> None:
        """Cancel the recovery of a server that stops."""
        if self._reopening is not None:
            self._reopening.cancel()

    def _obey(self, command: Callable[..., None], request: HttpRequest, connection: ServerConnection) -> None:
        """Carry out a command, with the members of the JSON object in the body as its arguments."""
        try:
            command(**orjson.loads(request.body or b"{}"))
        except (ConfigError, TypeError, orjson.JSONDecodeError) as error:
            connection.reply(failure(400, str(error), "invalid_request_error"))
        else:
            connection.reply(Response(200, orjson.dumps({"state": self._state or "up"})))

    def _pause(self) -> None:
        self._state = "paused"

    def _revive(self) -> None:
        self._state = ""

    def _die(self, seconds: float | None = None) -> None:
        if seconds is not None and not seconds > 0:
            raise ConfigError("seconds must be a number above 0")
        self._state = "dead"
        asyncio.get_running_loop().call_later(_DELAY, self._close_connections, seconds)

    def _close_connections(self, seconds: float | None) -> None:
        if seconds is not None:
            self._stop_listening()
            self._reopening = asyncio.create_task(self._reopen(seconds))
        for connection in list(self._connections):
            connection.close()

    async def _reopen(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._listen()
        self._state = ""

    def _set_options(self, **options: Any) -> None:
        if not options.keys() <= CHANGEABLE:
            raise ConfigError(f"the body must be a JSON object of some of {', '.join(sorted(CHANGEABLE))}")
        self._provider.update_behavior(replace(self._provider.behavior, **options))
