"""Two nodes on one machine: network namespaces with a wire between them, and a raylet in each.

Whatever crosses the wire is counted by its device. The file system is shared. Needs root and `ip`.
"""

import asyncio
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.harness.points import BenchError

NEAR, FAR = "10.78.0.1", "10.78.0.2"
PORT = "6379"
START_SECONDS = 120.0
STORE_BYTES = str(200 << 20)


class TwoHosts:
    """Two hosts with a cluster over both; the custom resources `near` and `far` place something on one.

    Args:
        cpus: how many each says it has.
        surroundings: the raylets' environment; default this process's.

    Raises:
        BenchError: if a raylet does not start.
    """

    tools = ("ip", "unshare")

    def __init__(self, *, cpus: int = 4, surroundings: Mapping[str, str] | None = None) -> None:
        name = f"loom{os.getpid()}"
        self.near, self.far = f"{name}n", f"{name}f"
        self._cpus = str(cpus)
        self._surroundings = dict(os.environ if surroundings is None else surroundings)
        self._folder = Path(tempfile.mkdtemp(prefix="loom-", dir="/tmp"))  # sockets need a short path
        self.environment = {
            "RAY_ADDRESS": f"{NEAR}:{PORT}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def __enter__(self) -> Self:
        try:
            self._link()
            head = ("--head", "--port", PORT, "--include-dashboard", "false", "--temp-dir", str(self._folder))
            self._start(self.near, NEAR, "near", *head)
            self.start_far()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @classmethod
    def missing(cls) -> str:
        """Return why there cannot be two hosts here; empty if there can."""
        if missing := [tool for tool in cls.tools if shutil.which(tool) is None]:
            return f"{' and '.join(missing)} not found, for two network namespaces"
        tried = subprocess.run(["unshare", "--net", "true"], check=False, capture_output=True, text=True)
        return f"no network namespaces here: {tried.stderr.strip()}" if tried.returncode else ""

    def on(self, host: str) -> tuple[str, ...]:
        """Return the words to put before a command to run it on `near` or `far`."""
        return ("ip", "netns", "exec", host)

    def pids(self, host: str) -> list[int]:
        """Return the ids of all processes on a host."""
        told = subprocess.run(["ip", "netns", "pids", host], check=False, capture_output=True, text=True)
        return [int(pid) for pid in told.stdout.split()]

    def start_far(self) -> None:
        """Start the raylet of the far host, anew if it was killed."""
        self._start(self.far, FAR, "far", "--address", self.environment["RAY_ADDRESS"])

    def crossed(self) -> int:
        """Return how many bytes have crossed the wire so far, in both directions."""
        told = _run("ip", "-n", self.near, "-s", "-j", "link", "show", "wire")
        counts: dict[str, Any] = json.loads(told)[0]["stats64"]
        return int(counts["rx"]["bytes"]) + int(counts["tx"]["bytes"])

    def _link(self) -> None:
        for host in (self.near, self.far):
            _run("ip", "netns", "add", host)
        wire = ("wire", "type", "veth", "peer", "name", "wire", "netns", self.far)
        _run("ip", "-n", self.near, "link", "add", *wire)
        for host, address in ((self.near, NEAR), (self.far, FAR)):
            _run("ip", "-n", host, "link", "set", "lo", "up")
            _run("ip", "-n", host, "addr", "add", f"{address}/24", "dev", "wire")
            _run("ip", "-n", host, "link", "set", "wire", "up")

    def _start(self, host: str, address: str, name: str, *options: str) -> None:
        ray = str(Path(sys.executable).with_name("ray"))
        common = ("--num-cpus", self._cpus, "--object-store-memory", STORE_BYTES)
        placed = ("--resources", json.dumps({name: 100}))
        command = [*self.on(host), ray, "start", "--node-ip-address", address, *options, *common, *placed]
        surroundings = {**self._surroundings, **self.environment}
        surroundings.pop("RAY_ADDRESS")
        log = self._folder / f"start-{name}.log"
        with log.open("wb") as told:  # a pipe would stay open as long as the raylet lives
            try:
                code = subprocess.run(
                    command, stdout=told, stderr=told, env=surroundings, timeout=START_SECONDS, check=False
                ).returncode
            except subprocess.TimeoutExpired:
                code = -1
        if code:
            raise BenchError(f"ray start on {name} ended with {code}: {log.read_text()[-500:]}")

    def _end(self) -> None:
        for host in (self.far, self.near):
            for pid in self.pids(host):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", host], check=False, capture_output=True)
        shutil.rmtree(self._folder, ignore_errors=True)


@asynccontextmanager
async def two_hosts() -> AsyncGenerator[TwoHosts]:
    """Start two hosts and end them, without blocking the event loop."""
    hosts = TwoHosts()
    await asyncio.to_thread(hosts.__enter__)
    try:
        yield hosts
    finally:
        await asyncio.to_thread(hosts.__exit__, None, None, None)


def _run(*argv: str) -> str:
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout
