"""Two hosts on one machine: network namespaces with a link between them, and a raylet in each.

The near host has the head of the Ray cluster, the driver and the model's server; the far one has peers. A cut
drops every packet in silence, as a dead switch does. The file system is shared. Needs root, `ip` and `tc`.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
from chaos_stage import Failed, environment
from chaos_watch import Member, send

NEAR, FAR = "10.77.0.1", "10.77.0.2"
PORT = "6379"
START_SECONDS = 90.0
STORE_BYTES = str(100 << 20)
_DROP = ("root", "tbf", "rate", "1kbit", "burst", "1", "latency", "1ms")  # a bucket that no packet fits


class TwoHosts:
    """The hosts `near` and `far` with a cluster over both. Use it as a context manager."""

    def __init__(self) -> None:
        name = f"chaos{os.getpid()}"
        self.near, self.far = f"{name}n", f"{name}f"
        self._folder = Path(tempfile.mkdtemp(prefix="chaos-ray-", dir="/tmp"))  # sockets need a short path
        self.environment = {
            "RAY_ADDRESS": f"{NEAR}:{PORT}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def __enter__(self) -> "TwoHosts":
        try:
            self._link()
            self.start_near()
            self.start_far()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for host in (self.far, self.near):
            send(self.processes(host), signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", host], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(self._folder, ignore_errors=True)

    @staticmethod
    def missing() -> str:
        """Why there cannot be two hosts here; empty if there can."""
        if missing := [tool for tool in ("ip", "tc", "unshare") if shutil.which(tool) is None]:
            return f"{' and '.join(missing)} not found"
        tried = subprocess.run(["unshare", "--net", "true"], check=False, capture_output=True, text=True)
        return tried.stderr.strip() if tried.returncode else ""

    def on(self, host: str) -> tuple[str, ...]:
        """What to put before a command to run it there."""
        return ("ip", "netns", "exec", host)

    def processes(self, host: str) -> list[psutil.Process]:
        """Everything that runs on a host."""
        told = subprocess.run(["ip", "netns", "pids", host], check=False, capture_output=True, text=True)
        found: list[psutil.Process] = []
        for pid in told.stdout.split():
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(int(pid)))
        return found

    def is_far(self, member: Member) -> bool:
        """Whether a member runs on the far host."""
        with contextlib.suppress(OSError):
            return Path(f"/proc/{member.process.pid}/ns/net").stat().st_ino == self._inode
        return False

    def cut(self) -> None:
        """From now on no packet passes."""
        for host in (self.near, self.far):
            _run("tc", "-n", host, "qdisc", "add", "dev", "wire", *_DROP)

    def heal(self) -> None:
        """Packets pass again."""
        for host in (self.near, self.far):
            _run("tc", "-n", host, "qdisc", "del", "dev", "wire", "root")

    def start_near(self) -> None:
        """Start the head."""
        head = (
            "--resources",
            '{"near": 1}',
            "--head",
            "--port",
            PORT,
            "--include-dashboard",
            "false",
            "--temp-dir",
            str(self._folder),
        )
        self._start(self.near, NEAR, *head)

    def start_far(self) -> None:
        """Start the second raylet, anew if it was killed."""
        self._start(self.far, FAR, "--resources", '{"far": 1}', "--address", f"{NEAR}:{PORT}")

    def _start(self, host: str, address: str, *options: str) -> None:
        ray = str(Path(sys.executable).with_name("ray"))
        common = ("--node-ip-address", address, "--num-cpus", "2", "--object-store-memory", STORE_BYTES)
        command = [*self.on(host), ray, "start", *options, *common, "--disable-usage-stats"]
        surroundings = {**environment(), **self.environment}
        surroundings.pop("RAY_ADDRESS")
        log = self._folder / f"start-{host}.log"
        with log.open("wb") as told:  # a pipe would stay open as long as the raylet lives
            done = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=told, stderr=told, env=surroundings
            )
            try:
                code = done.wait(START_SECONDS)
            except subprocess.TimeoutExpired:
                done.kill()
                code = done.wait()
        if code:
            raise Failed(f"ray start on {host} ended with {code}: {log.read_text()[-2000:]}")

    def _link(self) -> None:
        for host in (self.near, self.far):
            _run("ip", "netns", "add", host)
        wire = ("wire", "type", "veth", "peer", "name", "wire", "netns", self.far)
        _run("ip", "-n", self.near, "link", "add", *wire)
        for host, address in ((self.near, NEAR), (self.far, FAR)):
            _run("ip", "-n", host, "link", "set", "lo", "up")
            _run("ip", "-n", host, "addr", "add", f"{address}/24", "dev", "wire")
            _run("ip", "-n", host, "link", "set", "wire", "up")
        self._inode = Path(f"/run/netns/{self.far}").stat().st_ino


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{' '.join(command)}: {done.stderr.strip()}")
