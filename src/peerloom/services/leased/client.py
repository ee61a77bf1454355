"""Call the processes of a stateful service from one peer."""

import asyncio
from collections.abc import Sequence
from hashlib import blake2b

import aiohttp

from peerloom.errors import CallError
from peerloom.protocol.leases.messages import (
    STALE,
    Acquire,
    Granted,
    Refused,
    Reply,
    Request,
    decode_reply,
    encode,
)
from peerloom.services.leased.auth import token
from peerloom.services.llm.client.context import ClientContext
from peerloom.services.secret import Secret
from peerloom.task import TaskId

NOT_READY = 503
"""The HTTP status of a process that has just started."""

_RETRY_SECONDS = 0.1


class LeaseClient:
    """Sends the requests of holders to the processes of one service.

    There is no timeout: a call may take any time, and a lease may be waited for as long as the run is paused.
    The driver restarts a process that dies or gets stuck, which closes its connections.

    Args:
        service: the name of the service.
        urls: the base URLs of its processes.
        key: authenticates the requests.
        context: reports changes of the processes.
        per_task: the largest number of leases that a task may hold.
    """

    def __init__(
        self,
        service: str,
        urls: Sequence[str],
        key: Secret,
        context: ClientContext,
        per_task: int | None = None,
    ) -> None:
        self.per_task = per_task
        self._service = service
        self._urls = list(urls)
        self._key = key.reveal().encode()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
        )
        self._context = context
        context.on_move(service, self._move)

    async def send(self, request: Request, place: str) -> Reply | None:
        """See `StatefulClient`."""
        if not place or (isinstance(request, Acquire) and place not in self._urls):
            place = self._choose(request.id)
        elif place not in self._urls:
            return Refused(STALE)  # the process is gone, and its state with it
        headers = {"Authorization": f"Bearer {token(self._key, request.id, request.stamp)}"}
        try:
            async with self._session.post(
                f"{place}/lease", data=encode(request), headers=headers
            ) as response:
                body = await response.read()
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
            self._context.set_down(self._service, f"{place}: {error}")
            await asyncio.sleep(_RETRY_SECONDS)
            return None
        self._context.set_down(self._service, "")
        if response.status == NOT_READY:
            await asyncio.sleep(_RETRY_SECONDS)
            return None
        if response.status != 200:
            why = body.decode(errors="replace")
            raise CallError(f"service {self._service!r}: HTTP {response.status}: {why}")
        reply = decode_reply(body)
        if isinstance(reply, Granted):
            return Granted(reply.histories, place)
        return reply

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    def _move(self, urls: Sequence[str]) -> None:
        self._urls = list(urls)

    def _choose(self, id: TaskId) -> str:
        """Return a process for a task, always the same one while the processes are the same."""
        return max(self._urls, key=lambda url: blake2b(f"{url} {id}".encode(), digest_size=8).digest())
