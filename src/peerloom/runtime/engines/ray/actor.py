"""The Ray actor around one member.

Messages arrive on the actor's main event loop, where the member lives, and are only taken in there, so
calls never queue up behind work. Those of other members come by connections (`runtime.transport`), those of
the driver as actor calls. `ping` has a concurrency group of its own, which in Ray is a thread of its own: it
answers however busy the main loop is, and touches nothing of the member. So does `place`.
"""

import asyncio
import gc
import os
import sys
import threading

from peerloom.runtime.engine import build
from peerloom.runtime.engines.ray.api import Handle, RayError, ray
from peerloom.runtime.member.garbage import infrequent_gc
from peerloom.runtime.member.host import Host
from peerloom.runtime.member.spec import MemberSpec, encode_stats
from peerloom.runtime.transport.base import Unreachable
from peerloom.runtime.transport.compression import Compress
from peerloom.runtime.transport.connections import LOOPBACK, Address, ConnectFailed, Connection, Listener
from peerloom.runtime.transport.tls import Credentials

_LOOK_SECONDS = 1.0


class RayLink:
    """Sends to other members by connections of its own, or by actor calls where none can be made.

    `host` is this host as others reach it, and `compress` says which connections are compressed.
    """

    def __init__(self, credentials: Credentials) -> None:
        self.host = LOOPBACK
        self.compress: Compress = "auto"
        self._credentials = credentials
        self._handles: dict[str, Handle] = {}
        self._addresses: dict[str, Address] = {}
        self._connections: dict[str, asyncio.Future[Connection | None]] = {}

    def introduce(self, handles: dict[str, Handle], addresses: dict[str, Address]) -> None:
        """Set the other members: their actors, and where they listen."""
        for name in self._connections.keys() - handles.keys():
            _close(self._connections.pop(name))
        self._handles, self._addresses = handles, addresses

    async def send(self, to: str, data: bytes) -> bytes:
        """Send a message and return its answer."""
        connecting = self._connections.get(to)
        if connecting is None and to in self._addresses:
            connecting = self._connections[to] = asyncio.ensure_future(self._connect(self._addresses[to]))
        if connecting is not None:
            connection = connecting.result() if connecting.done() else await asyncio.shield(connecting)
            if connection is not None and connection.broken:
                self._connections.pop(to, None)  # the next message tries again
            if connection is not None:
                return await connection.send(data)
        return await self._call(to, data)

    def host_of(self, member: str) -> str:
        """Return the host of a member, or nothing if it is not known."""
        address = self._addresses.get(member)
        return address.host if address is not None else ""

    def close(self) -> None:
        """Close all connections."""
        for connecting in self._connections.values():
            _close(connecting)
        self._connections.clear()

    async def _connect(self, address: Address) -> Connection | None:
        try:
            return await Connection.connect(
                address, self._credentials, here=self.host, compress=self.compress
            )
        except ConnectFailed:
            return None

    async def _call(self, to: str, data: bytes) -> bytes:
        """One actor call."""
        handle = self._handles.get(to)
        if handle is None:
            raise Unreachable(f"no handle for {to}")
        try:
            return await handle.receive.remote(data)
        except RayError as error:
            raise Unreachable(f"{to}: {error}") from error


def _close(connecting: asyncio.Future[Connection | None]) -> None:
    if not connecting.done():
        connecting.cancel()
    elif not connecting.cancelled() and (connection := connecting.result()) is not None:
        connection.close()


def _end_with_loop(loop: asyncio.AbstractEventLoop, over: threading.Event) -> None:
    """End the process if its event loop has ended, which agents can do: it would hear no message any more."""
    while not over.wait(_LOOK_SECONDS):
        if not loop.is_running():
            print(
                "the event loop was ended by an agent, and this process with it", file=sys.stderr, flush=True
            )
            os._exit(1)


class MemberActor:
    """One member in a process of its own. `run` comes first: it brings the member to life.

    Args:
        credentials: of the run, for the members' own connections.
        path: the driver's `sys.path`. Set before the spec arrives, whose agents may come from modules
            that only the driver's path leads to.
    """

    def __init__(self, credentials: Credentials, path: list[str]) -> None:
        sys.path += [entry for entry in path if entry not in sys.path]
        self._link = RayLink(credentials)
        self._listener = Listener(credentials, self._handle)
        self._address = Address("")
        self._host: Host | None = None
        self._begun = asyncio.Event()

    async def run(self, spec: MemberSpec) -> bytes:
        """Live; the last figures. Fails with whatever ends the member."""
        gc.freeze()
        self._link.compress = spec.settings.compress
        self._host = build(spec, self._link)
        self._link.host = ray.util.get_node_ip_address()
        self._address = await self._listener.open(self._link.host)
        self._begun.set()
        over = threading.Event()
        threading.Thread(target=_end_with_loop, args=(asyncio.get_running_loop(), over), daemon=True).start()
        try:
            with infrequent_gc():
                return encode_stats(await self._host.run())
        finally:
            over.set()
            self._listener.close()
            self._link.close()

    async def ready(self) -> Address:
        """Wait until messages are taken in; where."""
        await self._begun.wait()
        await self._member.ready()
        return self._address

    async def introduce(self, handles: dict[str, Handle], addresses: dict[str, Address]) -> None:
        """How to reach the others."""
        self._link.introduce(handles, addresses)

    async def receive(self, data: bytes) -> bytes:
        """Take a message in."""
        return await self._member.receive(data)

    async def poll_events(self) -> list[bytes]:
        """What there is to tell the coordinator."""
        return await self._member.poll_events()

    async def stats(self) -> bytes:
        """The member's figures."""
        return encode_stats(self._member.stats())

    async def stop(self) -> None:
        """Stop living."""
        self._member.stop()

    def _handle(self, data: bytes) -> bytes:
        return self._member.handle(data)

    @property
    def _member(self) -> Host:
        assert self._host is not None, "no member is spoken to before it is ready"
        return self._host

    @ray.method(concurrency_group="control")
    async def place(self) -> tuple[str, int]:
        """The node and process id; whoever can tell is there."""
        return ray.get_runtime_context().get_node_id(), os.getpid()

    @ray.method(concurrency_group="control")
    async def ping(self) -> None:
        """Sign of life."""


Actor = ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0, concurrency_groups={"control": 2})(
    MemberActor
)
