"""Two nodes on one machine: network namespaces with a wire between them, and a raylet in each.

Whatever crosses the wire is counted by its device. The file system is shared. Needs root and `ip`.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from peerloom.bench.points import BenchError

NEAR, FAR = "10.78.0.1", "10.78.0.2"
PORT = "6379"
START_SECONDS = 120.0
STORE_BYTES = str(200 << 20)


class TwoHosts:
    """The hosts, with a cluster over both; the custom resources `near` and `far` place something on one.

    Raises:
        BenchError: if a raylet does not start.
    """

    def __init__(self) -> None:
        name = f"loom{os.getpid()}"
        self._near, self._far = f"{name}n", f"{name}f"
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
            self._start(self._near, NEAR, "near", *head)
            self._start(self._far, FAR, "far", "--address", self.environment["RAY_ADDRESS"])
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @staticmethod
    def missing() -> str:
        """Why there cannot be two hosts here; empty if there can."""
        if missing := [tool for tool in ("ip", "unshare") if shutil.which(tool) is None]:
            return f"{' and '.join(missing)} not found, for two network namespaces"
        tried = subprocess.run(["unshare", "--net", "true"], check=False, capture_output=True, text=True)
        return f"no network namespaces here: {tried.stderr.strip()}" if tried.returncode else ""

    @property
    def near(self) -> tuple[str, ...]:
        """What to put before a command to run it on the near host."""
        return ("ip", "netns", "exec", self._near)

    def crossed(self) -> int:
        """Bytes that have crossed the wire so far, in both directions."""
        told = _run("ip", "-n", self._near, "-s", "-j", "link", "show", "wire")
        counts: dict[str, Any] = json.loads(told)[0]["stats64"]
        return int(counts["rx"]["bytes"]) + int(counts["tx"]["bytes"])

    def _link(self) -> None:
        for host in (self._near, self._far):
            _run("ip", "netns", "add", host)
        wire = ("wire", "type", "veth", "peer", "name", "wire", "netns", self._far)
        _run("ip", "-n", self._near, "link", "add", *wire)
        for host, address in ((self._near, NEAR), (self._far, FAR)):
            _run("ip", "-n", host, "link", "set", "lo", "up")
            _run("ip", "-n", host, "addr", "add", f"{address}/24", "dev", "wire")
            _run("ip", "-n", host, "link", "set", "wire", "up")

    def _start(self, host: str, address: str, name: str, *options: str) -> None:
        ray = str(Path(sys.executable).with_name("ray"))
        common = ("--node-ip-address", address, "--num-cpus", "4", "--object-store-memory", STORE_BYTES)
        placed = ("--resources", json.dumps({name: 100}))
        command = ["ip", "netns", "exec", host, ray, "start", *options, *common, *placed]
        surroundings = {**os.environ, **self.environment}
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
        for host in (self._far, self._near):
            told = subprocess.run(["ip", "netns", "pids", host], check=False, capture_output=True, text=True)
            for pid in told.stdout.split():
                subprocess.run(["kill", "-9", pid], check=False, capture_output=True)
            subprocess.run(["ip", "netns", "del", host], check=False, capture_output=True)
        shutil.rmtree(self._folder, ignore_errors=True)


def _run(*argv: str) -> str:
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout
