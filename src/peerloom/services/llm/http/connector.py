"""Open connections to one server, with cached DNS lookups and TLS.

Both transports use the same TLS context. It trusts the certificates in SSL_CERT_FILE and SSL_CERT_DIR if
these are set, and otherwise those of the system.
"""

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import cast

import aiohappyeyeballs
from yarl import URL

from peerloom.services.llm.http.base import TransportError
from peerloom.services.llm.http.connection import HttpConnection

_DNS_SECONDS = 300.0
_NEXT_ADDRESS_SECONDS = 0.25  # until the next of several addresses is tried as well

_SocketName = tuple[str, int] | tuple[str, int, int, int]
_Address = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, _SocketName]


class Connector:
    """Opens connections to the server of `url`."""

    def __init__(self, url: URL) -> None:
        assert url.raw_host is not None and url.port is not None
        self._host, self._port = url.raw_host.rstrip("."), url.port
        self._tls = tls_context() if url.scheme == "https" else None
        self._lookup = asyncio.Lock()
        self._cached: Sequence[_Address] = ()
        self._cached_until = 0.0
        self._turn = 0

    async def open(self, factory: Callable[[], HttpConnection], seconds: float) -> HttpConnection:
        """Return a new connection, made by `factory` and opened within `seconds`.

        Raises:
            TransportError: if the connection cannot be opened, so that no server accepted the request.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self._connect(factory)
        except TimeoutError as error:
            raise TransportError(
                f"timeout (no connection to {self._where} in {seconds:.3g} s)", taken=False
            ) from error
        except (OSError, ssl.SSLError) as error:
            self._cached_until = 0.0
            why = f"cannot connect to {self._where} ({type(error).__name__}: {error})"
            raise TransportError(why, taken=False) from error

    @property
    def _where(self) -> str:
        return f"{self._host}:{self._port}"

    async def _connect(self, factory: Callable[[], HttpConnection]) -> HttpConnection:
        loop = asyncio.get_running_loop()
        addresses = await self._addresses(loop)
        name = self._host if self._tls is not None else None
        if len(addresses) == 1:
            host, port = addresses[0][4][:2]
            _, connection = await loop.create_connection(
                factory, host, port, ssl=self._tls, server_hostname=name
            )
            return connection
        self._turn = (self._turn + 1) % len(addresses)
        rotated = [*addresses[self._turn :], *addresses[: self._turn]]
        sock = await aiohappyeyeballs.start_connection(  # pyright: ignore[reportUnknownMemberType] - its tuples
            rotated, happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS, interleave=1, loop=loop
        )
        try:
            _, connection = await loop.create_connection(
                factory, sock=sock, ssl=self._tls, server_hostname=name
            )
        except BaseException:
            with suppress(OSError):
                sock.close()  # the loop may not own it yet
            raise
        return connection

    async def _addresses(self, loop: asyncio.AbstractEventLoop) -> Sequence[_Address]:
        """Return the addresses of the server, from a shared lookup if the cached ones have expired."""
        if time.monotonic() < self._cached_until:
            return self._cached
        async with self._lookup:
            if time.monotonic() >= self._cached_until:
                found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
                self._cached = cast("Sequence[_Address]", found)
                self._cached_until = time.monotonic() + _DNS_SECONDS
            return self._cached


def tls_context() -> ssl.SSLContext:
    """Return the TLS context for servers."""
    return _context(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@cache
def _context(file: str | None, folder: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()  # which reads the two variables itself
    context.set_alpn_protocols(["http/1.1"])
    return context
