"""Hands values on: by members' own connections, plain and compressed, and by Ray's object store.

Giver and takers are actors. Their CPU time counts, and that of the raylets they are on, which carry what is
in the store to other nodes. Each value is another piece of one long text, so none is found in a window.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import psutil

from benchmarks.workloads.texts import text
from peerloom.runtime.engines.ray.api import ray
from peerloom.runtime.engines.ray.cluster import connect, stop
from peerloom.runtime.transport import connections
from peerloom.runtime.transport.compression import Compress
from peerloom.runtime.transport.connections import Address, MemberListener
from peerloom.runtime.transport.frames import MemberConnection
from peerloom.runtime.transport.tls import Credentials

SIZES = (256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20)
FAN_OUTS = (1, 4)
WAYS = ("plain", "packed", "store")
TEXT = 16 << 20
SECONDS = 0.5  # of one measurement
LEAST, MOST = 5, 5_000  # values of one measurement

Spent = Mapping[int, float]
Give = Callable[[bytes], Awaitable[None]]


def spent() -> dict[int, float]:
    """Return the CPU seconds of this process and of its raylet, by process."""
    return {pid: sum(psutil.Process(pid).cpu_times()[:2]) for pid in (os.getpid(), os.getppid())}


class Taker:
    """Takes values in; `credentials` are those of its listener."""

    def __init__(self, credentials: Credentials) -> None:
        self._listener = MemberListener(credentials, lambda _: b"")

    async def open(self) -> Address:
        """Listen, and return the address."""
        return await self._listener.open(ray.util.get_node_ip_address())

    async def take(self, references: list[Any]) -> None:
        """Get the value of the reference in the list; Ray would resolve one by itself before the call."""
        await references[0]

    async def spent(self) -> Spent:
        """Return the CPU seconds of this process and of its raylet."""
        return spent()


class Giver:
    """Hands values out.

    Args:
        credentials: of the takers' listeners.
        takers: their handles.
        addresses: where they listen.
        texts: see `benchmarks.workloads.texts`.
    """

    def __init__(
        self, credentials: Credentials, takers: list[Any], addresses: list[Address], texts: str
    ) -> None:
        self._credentials, self._takers, self._addresses = credentials, takers, addresses
        self._text = text(TEXT, 1, texts).encode()
        self._at = 0

    async def give(self, way: str, size: int, fan_out: int) -> tuple[float, int, Spent, Spent]:
        """Hand values of a size to a number of takers.

        Returns:
            Seconds, the number of values, and the CPU time before and after.
        """
        connections = await self._connect(way, fan_out)
        give: Give = partial(self._store, fan_out) if way == "store" else partial(_send, connections)
        begin = time.perf_counter()
        for _ in range(LEAST):
            await give(self._value(size))
        each = (time.perf_counter() - begin) / LEAST
        times = min(MOST, max(LEAST, round(SECONDS / each)))
        before, begin = await self._spent(fan_out), time.perf_counter()
        for _ in range(times):
            await give(self._value(size))
        seconds = time.perf_counter() - begin
        after = await self._spent(fan_out)
        for connection in connections:
            connection.close()
        return seconds, times, before, after

    async def _connect(self, way: str, fan_out: int) -> list[MemberConnection]:
        if way == "store":
            return []
        compress: Compress = "always" if way == "packed" else "never"
        here = ray.util.get_node_ip_address()
        return [
            await connections.connect(address, self._credentials, here=here, compress=compress)
            for address in self._addresses[:fan_out]
        ]

    async def _store(self, fan_out: int, value: bytes) -> None:
        reference = ray.put(value)
        await asyncio.gather(*(taker.take.remote([reference]) for taker in self._takers[:fan_out]))

    async def _spent(self, fan_out: int) -> Spent:
        takers = await asyncio.gather(*(taker.spent.remote() for taker in self._takers[:fan_out]))
        return {pid: seconds for each in (*takers, spent()) for pid, seconds in each.items()}

    def _value(self, size: int) -> bytes:
        if self._at + size > len(self._text):
            self._at = 0
        self._at += size
        return self._text[self._at - size : self._at]


async def measure(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Measure all sizes, fan-outs and ways, between two nodes or on one.

    Args:
        spec: `address` of the cluster, `local` for one of its own; `near` and `far` are custom resources of
            the giver's and the takers' nodes, or empty.
    """
    connect(spec["address"], checked=True)  # the cluster was started for this
    begin, credentials = time.time(), Credentials.create()
    try:
        takers = [_actor(Taker, spec["far"]).remote(credentials) for _ in range(max(FAN_OUTS))]
        addresses: list[Address] = await asyncio.gather(*(taker.open.remote() for taker in takers))
        giver = _actor(Giver, spec["near"]).remote(credentials, takers, addresses, spec["texts"])
        points = [await _point(giver, size, fan_out) for fan_out in FAN_OUTS for size in SIZES]
    finally:
        stop()
    return {"begin": begin, "end": time.time(), "points": points}


async def _point(giver: Any, size: int, fan_out: int) -> dict[str, Any]:
    point: dict[str, Any] = {"fan_out": fan_out, "size": size}
    for way in WAYS:
        seconds, times, before, after = await giver.give.remote(way, size, fan_out)
        point[f"{way}_cpu_us"] = 1e6 * sum(after[pid] - before.get(pid, 0.0) for pid in after) / times
        point[f"{way}_wall_us"] = 1e6 * seconds / times
    return point


async def _send(connections: Sequence[MemberConnection], value: bytes) -> None:
    await asyncio.gather(*(connection.send(value) for connection in connections))


def _actor(kind: type, node: str) -> Any:
    return ray.remote(num_cpus=0, resources={node: 1} if node else {})(kind)
