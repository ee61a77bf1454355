"""A server that does to each connection, byte by byte, what a test says; with TLS if it has a certificate."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

Act = Callable[["Client"], Awaitable[None]]


class Client:
    """One connection, as the server sees it; `number` counts them from 0."""

    def __init__(
        self, server: "WireServer", reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.server, self.reader, self.writer = server, reader, writer
        self.number = server.connections

    async def request(self) -> tuple[str, bytes]:
        """The next request, read to its end."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        sizes = [line for line in head.lower().splitlines() if line.startswith("content-length:")]
        body = await self.reader.readexactly(int(sizes[0].split(":")[1])) if sizes else b""
        self.server.requests.append((head, body))
        return head, body

    async def send(self, *pieces: bytes) -> None:
        """Each piece in a packet of its own, so far as that can be had."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def gone(self) -> None:
        """Wait until the client closes."""
        with suppress(ConnectionError):
            while await self.reader.read(65536):
                pass


class WireServer:
    """What has come in so far."""

    def __init__(self, act: Act, scheme: str) -> None:
        self.act, self.scheme = act, scheme
        self.requests: list[tuple[str, bytes]] = []
        self.connections = self.open = 0
        self.port = 0
        self.left = asyncio.Event()

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"{self.scheme}://127.0.0.1:{self.port}/v1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        client = Client(self, reader, writer)
        self.connections += 1
        self.open += 1
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                await self.act(client)
        finally:
            writer.close()
            self.open -= 1
            self.left.set()

    async def empty(self) -> None:
        """Wait until all clients have gone."""
        while self.open:
            self.left.clear()
            await self.left.wait()


@asynccontextmanager
async def wire_server(act: Act, tls: ssl.SSLContext | None = None) -> AsyncIterator[WireServer]:
    """A server that treats each connection with `act`, and closes it then."""
    wire = WireServer(act, "https" if tls else "http")
    tasks: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        tasks.add(asyncio.ensure_future(wire.serve(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    wire.port = server.sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        for writer in writers:  # a task that was cancelled before it began closes nothing
            writer.transport.abort()
        await asyncio.gather(*tasks, return_exceptions=True)


def certificate(folder: Path, name: str) -> tuple[Path, ssl.SSLContext]:
    """A certificate that signs itself, for `name` (`IP:...`, `DNS:...`), and a context that shows it."""
    path, key = folder / "cert.pem", folder / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    made += ["-days", "2", "-subj", "/CN=test", "-addext", f"subjectAltName={name}"]
    subprocess.run([*made, "-keyout", key, "-out", path], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key)
    return path, context
