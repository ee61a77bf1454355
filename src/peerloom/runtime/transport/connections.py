"""Connect members: each listens, and keeps one connection open to each member it sends messages to.

An actor call costs both ends together about half a millisecond of CPU time, and carries messages above 100 KB
through the object store. A message here is one write and one read. Between hosts, members connect by TLS
(`runtime/transport/tls.py`). Within a host they connect by Unix sockets in directories that only their
user can enter.

When a connection breaks, it is unknown which of the unanswered messages had arrived: each call raises
`Unreachable`, and the census decides. If connecting fails, no message was sent.
"""

import asyncio
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from peerloom.runtime.transport.compression import Compress
from peerloom.runtime.transport.frames import MemberConnection, ServerProtocol
from peerloom.runtime.transport.tls import Credentials

HANDSHAKE_SECONDS = 5.0
LOOPBACK = "127.0.0.1"
BACKLOG = 1024  # members that may connect at once


class Address(NamedTuple):
    """The address of a listening member.

    Args:
        host: the address of its host for other hosts.
        port: the port for TLS connections, or 0.
        local: the path of the Unix socket for connections from the same host, or empty.
    """

    host: str
    port: int = 0
    local: str = ""


class ConnectFailed(Exception):
    """A connection could not be made; nothing was sent."""


class MemberListener:
    """Accepts connections of other members.

    Args:
        credentials: the credentials of the run.
        receive: handles a message without blocking, and returns the answer; empty if there is none.
    """

    def __init__(self, credentials: Credentials, receive: Callable[[bytes], bytes]) -> None:
        self._credentials = credentials
        self._receive = receive
        self._connections: set[ServerProtocol] = set()
        self._servers: list[asyncio.Server] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    async def open(self, host: str) -> Address:
        """Listen on a Unix socket and, with TLS, on a free port of `host`; return the address."""
        loop = asyncio.get_running_loop()
        self._folder = tempfile.TemporaryDirectory(prefix="peerloom-", ignore_cleanup_errors=True)  # 0700
        local = f"{self._folder.name}/member"
        try:
            self._servers.append(await loop.create_unix_server(self._protocol, local, backlog=BACKLOG))
            if host == LOOPBACK:
                return Address(host, local=local)
        except OSError:
            local = ""  # the path is too long, for example
        try:
            server = await loop.create_server(
                self._protocol,
                host,
                0,
                ssl=self._credentials.server_context(),
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                backlog=BACKLOG,
            )
        except OSError:
            return Address(host, local=local)
        self._servers.append(server)
        return Address(host, server.sockets[0].getsockname()[1], local)

    def close(self) -> None:
        """Close all connections; messages in transit are lost."""
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            connection.close()
        if self._folder is not None:
            self._folder.cleanup()

    def _protocol(self) -> ServerProtocol:
        return ServerProtocol(self._receive, self._connections)


async def connect(
    address: Address, credentials: Credentials, *, here: str = LOOPBACK, compress: Compress = "auto"
) -> MemberConnection:
    """Connect to a member.

    Args:
        address: where the member listens.
        credentials: the credentials of the run.
        here: the address of this host for other hosts.
        compress: which connections are compressed.

    Raises:
        ConnectFailed: if the member does not answer there, or lacks the credentials.
    """
    loop, near = asyncio.get_running_loop(), address.host == here
    connection = MemberConnection(compress=compress == "always" or (compress == "auto" and not near))
    try:
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            if near and address.local:
                # Containers may share the address of their host, but not its files.
                with suppress(FileNotFoundError):
                    await loop.create_unix_connection(lambda: connection, address.local)
                    return connection
            tls = credentials.client_context()
            await loop.create_connection(lambda: connection, address.host, address.port, ssl=tls)
    except (OSError, TimeoutError) as error:
        connection.close()
        raise ConnectFailed from error
    return connection
