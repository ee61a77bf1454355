"""Opens connections to one server: its addresses looked up now and then, TLS as the environment trusts.

aiohttp is given the same TLS context, so both trust the same: SSL_CERT_FILE and SSL_CERT_DIR, if set, instead
of the system's own.
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
from peerloom.services.llm.http.connection import Connection

_DNS_SECONDS = 300.0
_NEXT_ADDRESS_SECONDS = 0.25  # with several addresses, how long one is tried alone

_SocketName = tuple[str, int] | tuple[str, int, int, int]
_Address = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, _SocketName]


class Dialer:
    """Connects to the server of `url`."""

    def __init__(self, url: URL) -> None:
        assert url.raw_host is not None and url.port is not None
        self._host, self._port = url.raw_host.rstrip("."), url.port
        self._tls = tls_context() if url.scheme == "https" else None
        self._looking = asyncio.Lock()
        self._found: Sequence[_Address] = ()
        self._until = 0.0
        self._turn = 0

    async def open(self, make: Callable[[], Connection], seconds: float) -> Connection:
        """A new connection, in so many seconds.

        Raises:
            Unanswered: if there is none; no request was taken then.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self._connect(make)
        except TimeoutError as error:
            raise TransportError(
                f"timeout (no connection to {self._where} in {seconds:.3g} s)", taken=False
            ) from error
        except (OSError, ssl.SSLError) as error:
            self._until = 0.0
            why = f"cannot connect to {self._where} ({type(error).__name__}: {error})"
            raise TransportError(why, taken=False) from error

    @property
    def _where(self) -> str:
        return f"{self._host}:{self._port}"

    async def _connect(self, make: Callable[[], Connection]) -> Connection:
        loop = asyncio.get_running_loop()
        addresses = await self._addresses(loop)
        name = self._host if self._tls is not None else None
        if len(addresses) == 1:
            host, port = addresses[0][4][:2]
            _, made = await loop.create_connection(make, host, port, ssl=self._tls, server_hostname=name)
            return made
        self._turn = (self._turn + 1) % len(addresses)
        turned = [*addresses[self._turn :], *addresses[: self._turn]]
        sock = await aiohappyeyeballs.start_connection(  # pyright: ignore[reportUnknownMemberType] - its tuples
            turned, happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS, interleave=1, loop=loop
        )
        try:
            _, made = await loop.create_connection(make, sock=sock, ssl=self._tls, server_hostname=name)
        except BaseException:
            with suppress(OSError):
                sock.close()  # the loop may not have taken it over yet
            raise
        return made

    async def _addresses(self, loop: asyncio.AbstractEventLoop) -> Sequence[_Address]:
        """Where the server is: looked up by one call at a time, for all."""
        if time.monotonic() < self._until:
            return self._found
        async with self._looking:
            if time.monotonic() >= self._until:
                found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
                self._found = cast("Sequence[_Address]", found)
                self._until = time.monotonic() + _DNS_SECONDS
            return self._found


def tls_context() -> ssl.SSLContext:
    """How servers are to prove who they are."""
    return _context(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@cache
def _context(file: str | None, folder: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()  # which reads those two itself
    context.set_alpn_protocols(["http/1.1"])
    return context
