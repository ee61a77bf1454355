"""Run one process of a stateful service: an HTTP server around a lease table.

`POST /lease` takes a request of a holder, `POST /control` messages of feeders, and `GET /health` answers
while the process works. Bodies are MessagePack (`protocol/leases/messages`). An `Acquire` is answered when it
is granted; if its connection closes before, it is withdrawn.

    python -m peerloom.services.leased.host CONFIG

CONFIG is JSON: `resource` (an import path), `path` (folders to import from), `options`, `capacity`, `host`
and `port`. The key is in the environment (`KEY`).
"""

import asyncio
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
from aiohttp import web

from peerloom.errors import CodecError
from peerloom.lookup.plugins import import_path
from peerloom.protocol.leases.messages import (
    FAILED,
    Refused,
    Reply,
    StepReply,
    decode_controls,
    decode_request,
    encode,
)
from peerloom.protocol.leases.table import Execute, Lease, LeaseTable, SendReply
from peerloom.services.leased.auth import control_token, matches, token
from peerloom.services.leased.resource import Rejected, Resource

KEY = "PEERLOOM_SERVICE_KEY"
_MAX_BODY = 64 << 20
_CANCEL_SECONDS = 5.0  # for which a cancelled step may resist, before its resource is closed all the same

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class LeaseHost:
    """Executes the effects of a lease table on resources.

    Args:
        make: creates a resource from a spec.
        capacity: the number of leases.
        key: authenticates requests.
    """

    def __init__(self, make: Callable[[Any], Resource], capacity: int, key: bytes) -> None:
        self.table = LeaseTable(capacity)
        self._make = make
        self._key = key
        self._steps: dict[Lease, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._is_ready = False

    def app(self) -> web.Application:
        """Return the HTTP server."""
        app = web.Application(client_max_size=_MAX_BODY, handler_args={"handler_cancellation": True})
        app.router.add_post("/lease", self._lease)
        app.router.add_post("/control", self._control)
        app.router.add_post("/history", self._learn_history)
        app.router.add_get("/health", self._health)
        return app

    async def run(self, host: str, port: int) -> None:
        """Serve until cancelled, then close all resources."""
        runner = web.AppRunner(self.app(), access_log=None)
        await runner.setup()
        try:
            async with asyncio.TaskGroup() as self._group:
                await web.TCPSite(runner, host, port, reuse_port=True, backlog=1024).start()
                await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    async def _lease(self, request: web.Request) -> web.Response:
        if not self._is_ready:
            return web.Response(status=503, text="it does not yet know which tasks are fenced")
        try:
            message = decode_request(await request.read())
        except CodecError as error:
            return web.Response(status=400, text=str(error))
        if not matches(_presented(request), token(self._key, message.id, message.stamp)):
            return web.Response(status=401, text="this is not the token of this copy of the task")
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.table.handle(message, answer)
        self._apply()
        try:
            return web.Response(body=encode(await answer))
        finally:
            if not answer.done() or answer.cancelled():
                self.table.cancel(message.id, answer)
                self._apply()

    async def _control(self, request: web.Request) -> web.Response:
        if not matches(_presented(request), control_token(self._key)):
            return web.Response(status=401)
        if not self._is_ready:
            return web.Response(status=503)
        for message in decode_controls(await request.read()):
            self.table.control(message)
        self._apply()
        return web.Response()

    async def _learn_history(self, request: web.Request) -> web.Response:
        """Handle the messages that the processes before this one have got."""
        self._is_ready |= matches(_presented(request), control_token(self._key))
        return await self._control(request)

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"used": self.table.used, "waiting": self.table.waiting})

    def _apply(self) -> None:
        """Carry out the effects of the table."""
        assert self._group is not None
        while effects := self.table.effects():
            for effect in effects:
                match effect:
                    case SendReply(tickets, reply):
                        for ticket in tickets:
                            if not ticket.done():
                                ticket.set_result(reply)
                    case Execute(lease):
                        self._steps[lease] = self._group.create_task(self._execute(lease))
                    case _:
                        self._group.create_task(self._close(effect.lease))

    async def _execute(self, lease: Lease) -> None:
        step = lease.running
        assert step is not None
        try:
            if lease.resource is None:
                lease.resource = self._make(_decode(lease.spec))
                await lease.resource.start()
            reply = await lease.resource.call(_decode(step.request))
            self.table.executed(lease, StepReply(_encode(reply)))
        except Rejected as error:
            self.table.executed(lease, Refused(FAILED, str(error)))
        except Exception as error:  # of the author's code
            traceback.print_exc()  # to the log of the process
            self.table.broken(lease, Refused(FAILED, f"{type(error).__name__}: {error}"))
        finally:
            self._steps.pop(lease, None)
        self._apply()

    async def _close(self, lease: Lease) -> None:
        """Cancel the step of a lease, and close its resource."""
        step = self._steps.get(lease)
        if step is not None:
            step.cancel()
            await asyncio.wait([step], timeout=_CANCEL_SECONDS)
        if lease.resource is not None:
            try:
                await lease.resource.close()
            except Exception as error:  # of the author's code; the lease is free in any case
                print(f"closing a resource: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            lease.resource = None
        self.table.closed(lease)
        self._apply()


def _presented(request: web.Request) -> str:
    return request.headers.get("Authorization", "").removeprefix("Bearer ")


async def _main(config: dict[str, Any]) -> None:
    sys.path += [folder for folder in config["path"] if folder not in sys.path]
    kind: type[Resource] = import_path(config["resource"])
    make = partial(kind, **config["options"])
    host = LeaseHost(make, config["capacity"], os.environ.pop(KEY).encode())
    serving = asyncio.create_task(host.run(config["host"], config["port"]))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
    with suppress(asyncio.CancelledError):
        await serving


if __name__ == "__main__":
    asyncio.run(_main(json.loads(sys.argv[1])))
