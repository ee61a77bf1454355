"""Replicas whose machine is lost."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from peerloom.errors import ServiceError
from peerloom.services.processes import replica
from peerloom.services.processes.group import Group
from peerloom.services.processes.server import Command, ServerAddress
from peerloom.services.processes.spawn import LocalSpawner, PlaceLost

SERVER = """
import http.server, sys
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
http.server.HTTPServer((sys.argv[1], int(sys.argv[2])), Health).serve_forever()
"""


class Machines(LocalSpawner):
    """Machines, of which there may be none for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = False
        self.asked = 0

    async def spread(self, count: int) -> "list[Machines]":
        self.asked += 1
        if self.lost and self.asked < 4:
            raise ServiceError("no node of the cluster has num_gpus=1")
        self.lost = False
        return [self] * count

    async def reserve_port(self, host: str | None = None) -> tuple[str, int]:
        if self.lost:
            raise PlaceLost("the process on the node is gone")
        return await super().reserve_port(host)


def argv(address: ServerAddress) -> list[str]:
    return [sys.executable, "-c", SERVER, address.host, str(address.port)]


async def test_one_that_has_lost_its_machine_waits_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "PLACE_SECONDS", 0.01)
    machines, notices, states = Machines(), list[str](), list[str]()
    back = asyncio.Event()
    group = Group(Command(engine="test", description="the test server", argv=argv, check_seconds=0.1), 1)

    def changed() -> None:
        states.append(group.replicas[0].state)
        if states[-1] == "up":
            back.set()

    await group.start(machines, notices.append, tmp_path)
    watching = asyncio.create_task(group.watch(changed))
    try:
        pid = group.replicas[0].pid
        assert pid is not None
        machines.lost = True
        os.kill(pid, signal.SIGKILL)
        await asyncio.wait_for(back.wait(), 60)
    finally:
        watching.cancel()
        await group.stop()
    assert (states, machines.asked, group.replicas[0].restarts) == (["restarting", "up"], 4, 1)
    waits = [notice for notice in notices if "waits for a machine" in notice]
    assert waits == ["the test server waits for a machine: no node of the cluster has num_gpus=1"]
