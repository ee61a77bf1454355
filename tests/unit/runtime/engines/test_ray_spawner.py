"""Processes of services on the nodes of a cluster: here one node, whose actors are processes all the same."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from peerloom.errors import ServiceError
from peerloom.runtime.engines.ray.spawner import NodeSpawner, RaySpawner
from peerloom.services.processes.group import Group
from peerloom.services.processes.server import Command, ServerAddress
from peerloom.services.processes.spawn import PlaceLost

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]

SERVER = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

class Server(HTTPServer):
    allow_reuse_port = True

print("listens", flush=True)
Server((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
"""


async def connected() -> None:
    """It is, by the fixture."""


@pytest_asyncio.fixture
async def place() -> AsyncIterator[NodeSpawner]:
    (place,) = await RaySpawner(connected).spread(1)
    yield place
    await place.close()


def argv(seat: ServerAddress) -> list[str]:
    return [sys.executable, "-c", SERVER, seat.host, str(seat.port)]


async def test_a_process_on_a_node(place: NodeSpawner, tmp_path: Path) -> None:
    code = "import os, sys; print(os.environ['MINE'], flush=True); sys.stdin.read(); sys.exit(7)"
    log = tmp_path / "child.log"
    child = await place.start([sys.executable, "-c", code], name="test", env={"MINE": "yes"}, log=log)
    assert await child.wait() == 7
    assert await child.output() == "yes\n"
    assert (child.log, await child.cpu_seconds()) == (str(log), 0.0)


async def test_it_is_stopped(place: NodeSpawner) -> None:
    child = await place.start(["sleep", "1000"], name="test")
    await child.stop()
    assert await child.wait() == -signal.SIGTERM


async def test_a_log_where_there_is_no_such_directory(place: NodeSpawner, tmp_path: Path) -> None:
    child = await place.start(["echo", "hello"], name="test", log=tmp_path / "not" / "there" / "a.log")
    assert await child.wait() == 0
    assert await child.output() == "hello\n"
    assert not (tmp_path / "not").exists()


async def test_no_such_program(place: NodeSpawner) -> None:
    with pytest.raises(ServiceError, match="engine: cannot start 'no-such-program'"):
        await place.start(["no-such-program"], name="engine")


async def test_a_port_is_reserved(place: NodeSpawner) -> None:
    host, port = await place.reserve_port()
    with pytest.raises(OSError, match="ddress already in use"):
        await asyncio.start_server(lambda *_: None, host, port)
    await place.release_port(port)
    server = await asyncio.start_server(lambda *_: None, host, port)
    server.close()
    await server.wait_closed()


def actor_of(pid: int) -> int:
    """The process that has started a process by way of its two supervisors."""
    return psutil.Process(pid).parents()[2].pid


async def test_a_lost_node_takes_its_processes_along(place: NodeSpawner) -> None:
    child = await place.start(["sleep", "1000"], name="test")
    os.kill(actor_of(child.pid), signal.SIGKILL)
    assert await child.wait() == -9
    with pytest.raises(PlaceLost):
        await place.start(["sleep", "1000"], name="test")
    await child.stop()


async def test_resources_that_no_node_has() -> None:
    with pytest.raises(ServiceError, match="no node of the cluster has num_gpus=64"):
        await RaySpawner(connected, {"num_gpus": 64}).spread(1)


async def test_a_replica_whose_node_is_lost_comes_back_elsewhere(tmp_path: Path) -> None:
    command = Command(
        engine="test", description="the test server", argv=argv, reuses_port=True, check_seconds=0.2
    )
    group = Group(command, 2, everywhere=True)
    notices: list[str] = []
    changes: list[tuple[str, ...]] = []
    back = asyncio.Event()

    def changed() -> None:
        changes.append(group.urls)
        if len(changes) > 1 and len(group.urls) == 2:
            back.set()

    await group.start(RaySpawner(connected), notices.append, tmp_path)
    before = group.urls
    watching = asyncio.create_task(group.watch(changed))
    try:
        first = group.replicas[0].pid
        assert first is not None
        os.kill(actor_of(first), signal.SIGKILL)
        await asyncio.wait_for(back.wait(), 60)
    finally:
        watching.cancel()
        await group.stop()
    assert changes[0] == before[1:]
    assert group.replicas[0].url != before[0]
    assert "test server 1 is back" in notices[-1]
