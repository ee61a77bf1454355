"""Two hosts on one machine, one of which goes down or is cut off.

The near host has the head of the Ray cluster, the driver and the model's server; the far one has peers. A cut
drops every packet in silence, as a dead switch does.
"""

import contextlib
import subprocess
from pathlib import Path

import psutil
from chaos_stage import Failed, environment
from chaos_watch import Member

from benchmarks.harness import hosts

NEAR = hosts.NEAR
_DROP = ("root", "tbf", "rate", "1kbit", "burst", "1", "latency", "1ms")  # a bucket that no packet fits


class TwoHosts(hosts.TwoHosts):
    """The hosts `near` and `far` with a cluster over both. Use it as a context manager."""

    tools = (*hosts.TwoHosts.tools, "tc")

    def __init__(self) -> None:
        super().__init__(cpus=2, surroundings=environment())

    def processes(self, host: str) -> list[psutil.Process]:
        """Everything that runs on a host."""
        found: list[psutil.Process] = []
        for pid in self.pids(host):
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(pid))
        return found

    def is_far(self, member: Member) -> bool:
        """Whether a member runs on the far host."""
        with contextlib.suppress(OSError):
            inode = Path(f"/run/netns/{self.far}").stat().st_ino
            return Path(f"/proc/{member.process.pid}/ns/net").stat().st_ino == inode
        return False

    def cut(self) -> None:
        """From now on no packet passes."""
        for host in (self.near, self.far):
            _run("tc", "-n", host, "qdisc", "add", "dev", "wire", *_DROP)

    def heal(self) -> None:
        """Packets pass again."""
        for host in (self.near, self.far):
            _run("tc", "-n", host, "qdisc", "del", "dev", "wire", "root")


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{' '.join(command)}: {done.stderr.strip()}")
