"""Run one member in a Ray actor.

The member runs on the main event loop of the actor. Other members send messages over connections
(`runtime.transport`), the driver by actor calls; handling a message only changes the state, so calls never
queue up behind work. `ping` and `place` are in a concurrency group, which in Ray has a thread of its own:
they answer however busy the main loop is, and do not access the member.
"""

import asyncio
import gc
import os
import sys
import threading

from peerloom.runtime.engine import build
from peerloom.runtime.engines.ray.api import Handle, RayError, ray
from peerloom.runtime.member.garbage import infrequent_gc
from peerloom.runtime.member.runtime import MemberRuntime
from peerloom.runtime.member.spec import MemberSpec
from peerloom.runtime.transport.base import Unreachable
from peerloom.runtime.transport.compression import Compress
from peerloom.runtime.transport.connections import (
    LOOPBACK,
    Address,
    ConnectFailed,
    MemberListener,
    connect,
)
from peerloom.runtime.transport.frames import MemberConnection
from peerloom.runtime.transport.tls import Credentials

_LOOK_SECONDS = 1.0


class RayLink:
    """Sends messages to other members over connections, or by actor calls if connecting fails.

    `host` is the address of this host for others, and `compress` selects the compressed connections.
    """

    def __init__(self, credentials: Credentials) -> None:
        self.host = LOOPBACK
        self.compress: Compress = "auto"
        self._credentials = credentials
        self._handles: dict[str, Handle] = {}
        self._addresses: dict[str, Address] = {}
        self._connections: dict[str, asyncio.Future[MemberConnection | None]] = {}

    def introduce(self, handles: dict[str, Handle], addresses: dict[str, Address]) -> None:
        """Set the handles and addresses of all members."""
        for name in self._connections.keys() - handles.keys():
            _close(self._connections.pop(name))
        self._handles, self._addresses = handles, addresses

    async def send(self, to: str, data: bytes) -> bytes:
        """Send a message to a member, and return the answer."""
        connecting = self._connections.get(to)
        if connecting is None and to in self._addresses:
            connecting = self._connections[to] = asyncio.ensure_future(self._connect(self._addresses[to]))
        if connecting is not None:
            connection = connecting.result() if connecting.done() else await asyncio.shield(connecting)
            if connection is not None and connection.broken:
                self._connections.pop(to, None)  # the next message reconnects
            if connection is not None:
                return await connection.send(data)
        return await self._call(to, data)

    def host_of(self, member: str) -> str:
        """Return the host of a member; empty if it is unknown."""
        address = self._addresses.get(member)
        return address.host if address is not None else ""

    def close(self) -> None:
        """Close all connections."""
        for connecting in self._connections.values():
            _close(connecting)
        self._connections.clear()

    async def _connect(self, address: Address) -> MemberConnection | None:
        try:
            return await connect(address, self._credentials, here=self.host, compress=self.compress)
        except ConnectFailed:
            return None

    async def _call(self, to: str, data: bytes) -> bytes:
        """Send a message by an actor call."""
        handle = self._handles.get(to)
        if handle is None:
            raise Unreachable(f"no handle for {to}")
        try:
            return await handle.receive.remote(data)
        except RayError as error:
            raise Unreachable(f"{to}: {error}") from error


def _close(connecting: asyncio.Future[MemberConnection | None]) -> None:
    if not connecting.done():
        connecting.cancel()
    elif not connecting.cancelled() and (connection := connecting.result()) is not None:
        connection.close()


def _end_with_loop(loop: asyncio.AbstractEventLoop, over: threading.Event) -> None:
    """End the process if an agent has stopped its event loop, since it could not receive messages."""
    while not over.wait(_LOOK_SECONDS):
        if not loop.is_running():
            print(
                "the event loop was ended by an agent, and this process with it", file=sys.stderr, flush=True
            )
            os._exit(1)


class MemberActor:
    """Runs one member in a process of its own. `run` is the first call, and creates the member.

    Args:
        credentials: the credentials of the run, for connections between members.
        path: the `sys.path` of the driver. It is set before the specification arrives, whose agents may be
            importable only by that path.
    """

    _member: MemberRuntime  # once `run` has begun; no message is sent to it before it is ready

    def __init__(self, credentials: Credentials, path: list[str]) -> None:
        sys.path += [entry for entry in path if entry not in sys.path]
        self._link = RayLink(credentials)
        self._credentials = credentials
        self._address = Address("")
        self._begun = asyncio.Event()

    async def run(self, spec: MemberSpec) -> None:
        """Run the member. Raise the error that ends it before `stop`."""
        gc.freeze()
        self._link.compress = spec.settings.compress
        self._member = build(spec, self._link)
        self._link.host = ray.util.get_node_ip_address()
        listener = MemberListener(self._credentials, self._member.handle)
        self._address = await listener.open(self._link.host)
        self._begun.set()
        over = threading.Event()
        threading.Thread(target=_end_with_loop, args=(asyncio.get_running_loop(), over), daemon=True).start()
        try:
            with infrequent_gc():
                await self._member.run()
        finally:
            over.set()
            listener.close()
            self._link.close()

    async def ready(self) -> Address:
        """Wait until the member accepts messages, and return its address."""
        await self._begun.wait()
        await self._member.ready()
        return self._address

    async def introduce(self, handles: dict[str, Handle], addresses: dict[str, Address]) -> None:
        """Pass on the handles and addresses of all members."""
        self._link.introduce(handles, addresses)

    async def receive(self, data: bytes) -> bytes:
        """Handle a message of the driver or of a member without a connection."""
        return self._member.handle(data)

    async def poll_events(self, received: int) -> list[bytes]:
        """Wait for the events after the first `received` ones, and return them."""
        return await self._member.poll_events(received)

    async def stop(self) -> None:
        """Stop the member."""
        self._member.stop()

    @ray.method(concurrency_group="control")
    async def place(self) -> tuple[str, int]:
        """Return the node and process id, which shows that the process has started."""
        return ray.get_runtime_context().get_node_id(), os.getpid()

    @ray.method(concurrency_group="control")
    async def ping(self) -> None:
        """Return, as a heartbeat."""


Actor = ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0, concurrency_groups={"control": 2})(
    MemberActor
)
