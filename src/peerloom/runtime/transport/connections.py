"""Connect members: each listens, and keeps one connection open to each member it sends messages to.

An actor call costs both ends together about half a millisecond of CPU time, and carries messages above 100 KB
through the object store. A message here is one write and one read. Members connect by loopback within a host,
and by TLS between hosts (`runtime/transport/tls.py`).

When a connection breaks, it is unknown which of the unanswered messages had arrived: each call raises
`Unreachable`, and the census decides. If connecting fails, no message was sent.
"""

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from peerloom.connection_limit import ConnectionLimit
from peerloom.runtime.transport.base import Unreachable
from peerloom.runtime.transport.compression import Compress
from peerloom.runtime.transport.frames import ClientProtocol, ServerProtocol
from peerloom.runtime.transport.tls import Credentials

HANDSHAKE_SECONDS = 5.0
LOOPBACK = "127.0.0.1"


class Address(NamedTuple):
    """The address of a listening member.

    Args:
        host: the address of its host for other hosts.
        port: the port for TLS connections from other hosts, or 0.
        local_port: the loopback port for connections from the same host, or 0.
    """

    host: str
    port: int = 0
    local_port: int = 0


class ConnectFailed(Exception):
    """A connection could not be made; nothing was sent."""


class MemberListener:
    """Accepts connections of other members.

    Args:
        credentials: the credentials of the run.
        receive: handles a message without blocking, and returns the answer; empty if there is none.
        limit: limits the connections that have not authenticated.
    """

    def __init__(
        self,
        credentials: Credentials,
        receive: Callable[[bytes], bytes],
        limit: ConnectionLimit | None = None,
    ) -> None:
        self._credentials = credentials
        self._receive = receive
        self._limit = limit or ConnectionLimit(seconds=HANDSHAKE_SECONDS)
        self._connections: set[ServerProtocol] = set()
        self._servers: list[asyncio.Server] = []

    async def open(self, host: str) -> Address:
        """Listen on free ports of loopback and, with TLS, of `host`; return the address."""
        local_port = await self._listen(LOOPBACK)
        if host == LOOPBACK:
            return Address(host, local_port=local_port)
        tls = {"ssl": self._credentials.server_context(), "ssl_handshake_timeout": self._limit.seconds}
        return Address(host, await self._listen(host, **tls), local_port)

    def close(self) -> None:
        """Close all connections; messages in transit are lost."""
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            connection.abort()

    async def _listen(self, host: str, **tls: Any) -> int:
        """Listen on a free port and return it; 0 if that is impossible."""
        try:
            server = await asyncio.get_running_loop().create_server(self._protocol, host, 0, **tls)
        except OSError:
            return 0
        self._servers.append(server)
        return server.sockets[0].getsockname()[1]

    def _protocol(self) -> ServerProtocol:
        return ServerProtocol(self._credentials.secret, self._receive, self._limit, self._connections)


class MemberConnection:
    """The calling end of a connection. Made by `connect`."""

    def __init__(self, protocol: ClientProtocol) -> None:
        self._protocol = protocol

    @classmethod
    async def connect(
        cls, address: Address, credentials: Credentials, *, here: str = LOOPBACK, compress: Compress = "auto"
    ) -> "MemberConnection":
        """Connect to a member, with TLS if it is on another host.

        Args:
            address: where the member listens.
            credentials: the credentials of the run.
            here: the address of this host for other hosts.
            compress: which connections are compressed.

        Raises:
            ConnectFailed: if the member does not answer there, or lacks the credentials.
        """
        local = address.host == here
        port = address.local_port if local else address.port
        if not port:
            raise ConnectFailed
        protocol = ClientProtocol(credentials.secret, compress)
        host, tls = (LOOPBACK, None) if local else (address.host, credentials.client_context())
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await asyncio.get_running_loop().create_connection(lambda: protocol, host, port, ssl=tls)
                await protocol.ready
        except (OSError, TimeoutError, Unreachable) as error:
            protocol.abort()
            raise ConnectFailed from error
        return cls(protocol)

    @property
    def broken(self) -> bool:
        """Whether the connection is broken."""
        return self._protocol.broken

    @property
    def compressed(self) -> bool:
        """Whether its messages are compressed."""
        return self._protocol.packer is not None

    async def send(self, data: bytes) -> bytes:
        """Send a message and return its answer.

        Raises:
            Unreachable: if the connection broke before the answer arrived.
        """
        return await self._protocol.call(data)

    def close(self) -> None:
        """Close the connection."""
        self._protocol.abort()
