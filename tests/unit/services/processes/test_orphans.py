"""Trees of processes, as engines are: nothing of them is left, however the program or its parent dies."""

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest

from peerloom.services.processes.spawn import ChildProcess, LocalSpawner

PATIENCE = 30.0  # seconds, for a busy machine

ENGINE = """
import os, signal, sys, time

def note(name):
    with open(sys.argv[1] + "/" + name + ".new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(sys.argv[1] + "/" + name + ".new", sys.argv[1] + "/" + name)

def fork(name, *, daemon=False, deaf=False, child=None):
    if os.fork():
        return
    if daemon:
        os.setsid()
        if os.fork():
            os._exit(0)
    if deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if child:
        child()
    note(name)
    while True:
        time.sleep(1000)

fork("worker", child=lambda: fork("grandchild"))
fork("daemon", daemon=True)
fork("deaf", deaf=True)
fork("deaf-daemon", daemon=True, deaf=True)
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
note("server")
while True:
    time.sleep(1000)
"""
NAMES = ("worker", "grandchild", "daemon", "deaf", "deaf-daemon", "server")


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


class Tree:
    """The processes of a stand-in for an engine, by their names."""

    def __init__(self, folder: Path) -> None:
        until(lambda: all((folder / name).exists() for name in NAMES))
        self.pids = {name: int((folder / name).read_text()) for name in NAMES}
        self._open = [os.pidfd_open(pid) for pid in self.pids.values()]

    def left(self) -> list[str]:
        """The names of those that have not ended."""
        events = select.poll()
        for fd in self._open:
            events.register(fd, select.POLLIN)
        ended = {fd for fd, _ in events.poll(0)}
        return [name for name, fd in zip(self.pids, self._open, strict=True) if fd not in ended]

    def supervisors(self) -> tuple[int, int]:
        """The outer and the inner one."""
        inner = psutil.Process(self.pids["server"]).ppid()
        return psutil.Process(inner).ppid(), inner

    def close(self) -> None:
        for fd in self._open:
            os.close(fd)


async def start(folder: Path, *more: str) -> tuple[ChildProcess, Tree]:
    argv = [sys.executable, "-c", ENGINE, str(folder), *more]
    child = await LocalSpawner().start(argv, name="engine", log=folder / "log")
    tree = await asyncio.to_thread(Tree, folder)
    assert tree.pids["server"] == child.pid
    return child, tree


async def test_stop_ends_the_whole_tree(tmp_path: Path) -> None:
    child, tree = await start(tmp_path)
    await child.stop()
    assert tree.left() == []
    assert await child.wait() == -signal.SIGTERM
    tree.close()


async def test_a_parent_with_many_open_files_can_end_it(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 1200:
        pytest.skip("no more than 1,200 files may be open")
    many = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        child, tree = await start(tmp_path)
        await child.stop()
    finally:
        for each in many:
            os.close(each)
    assert tree.left() == []
    tree.close()


async def test_a_server_that_ignores_sigterm_is_killed_with_its_tree(tmp_path: Path) -> None:
    child, tree = await start(tmp_path, "deaf")
    await child.stop(grace=0.05)
    assert (tree.left(), await child.wait()) == ([], -signal.SIGKILL)
    tree.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV], ids=lambda number: number.name)
async def test_the_tree_ends_with_the_server(number: signal.Signals, tmp_path: Path) -> None:
    child, tree = await start(tmp_path)
    os.kill(child.pid, number)
    assert await child.wait() == -number
    assert tree.left() == []
    tree.close()


@pytest.mark.parametrize("killed", ["outer", "inner", pytest.param("both", marks=pytest.mark.slow)])
async def test_the_tree_ends_with_a_supervisor(killed: str, tmp_path: Path) -> None:
    child, tree = await start(tmp_path)
    outer, inner = tree.supervisors()
    for name, pid in (("outer", outer), ("inner", inner)):
        if killed in (name, "both"):
            os.kill(pid, signal.SIGKILL)
    assert await child.wait() == -signal.SIGKILL
    assert tree.left() == []
    tree.close()


@pytest.mark.slow
async def test_a_stopped_supervisor_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peerloom.services.processes.spawn._KILL_SECONDS", 0.05)
    child, tree = await start(tmp_path)
    for pid in tree.supervisors():
        os.kill(pid, signal.SIGSTOP)
    await child.stop(grace=0.05)
    assert tree.left() == []
    tree.close()


async def test_signals_to_a_supervisor_that_ends_a_tree_change_nothing(tmp_path: Path) -> None:
    child, tree = await start(tmp_path)
    outer, inner = tree.supervisors()
    os.kill(inner, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        while tree.left():
            os.kill(outer, signal.SIGTERM)
            await asyncio.sleep(0.01)
    assert (await child.wait(), tree.left()) == (-signal.SIGKILL, [])
    tree.close()


async def test_the_rest_of_a_tree_may_outlive_no_successor(tmp_path: Path) -> None:
    """A server that ends by itself is gone only when all it has started is."""
    code = "import os; os.fork() or os.setsid() or os.execv('/bin/sleep', ['sleep', '1000']); exit(7)"
    argv, env = [sys.executable, "-c", code], {"TREE": str(tmp_path)}
    child = await LocalSpawner().start(argv, name="engine", env=env)
    assert await child.wait() == 7
    assert not [each for each in psutil.process_iter() if marked(each, str(tmp_path))]


def marked(process: psutil.Process, value: str) -> bool:
    try:
        return process.environ().get("TREE") == value
    except psutil.Error:
        return False


PARENT = """
import asyncio, sys
from pathlib import Path
from peerloom.services.processes.spawn import LocalSpawner

async def main():
    argv = [sys.executable, "-c", Path(sys.argv[1]).read_text(), *sys.argv[2:]]
    child = await LocalSpawner().start(argv, name="engine")
    print(child.pid, flush=True)
    await child.wait()

asyncio.run(main())
"""


def parent_of_a_tree(folder: Path, *more: str) -> tuple["subprocess.Popen[str]", Tree]:
    (folder / "engine.py").write_text(ENGINE)
    argv: Sequence[str] = [sys.executable, "-c", PARENT, str(folder / "engine.py"), str(folder), *more]
    parent = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    return parent, Tree(folder)


@pytest.mark.parametrize("more", [(), ("deaf",)], ids=["", "deaf"])
def test_the_tree_ends_with_its_killed_parent(more: tuple[str, ...], tmp_path: Path) -> None:
    parent, tree = parent_of_a_tree(tmp_path, *more)
    with parent:
        parent.kill()
    until(lambda: not tree.left())
    tree.close()


def test_the_tree_ends_if_its_parent_and_the_outer_supervisor_are_killed_at_once(tmp_path: Path) -> None:
    parent, tree = parent_of_a_tree(tmp_path)
    outer, _ = tree.supervisors()
    with parent:
        os.kill(parent.pid, signal.SIGSTOP)
        os.kill(outer, signal.SIGKILL)
        parent.kill()
    until(lambda: not tree.left())
    tree.close()


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["actor", "server", "stop"])
async def test_the_tree_ends_on_a_node_of_a_cluster(killed: str, ray_cluster: str, tmp_path: Path) -> None:
    from peerloom.runtime.engines.ray.spawner import RaySpawner

    async def connected() -> None: ...

    [place] = await RaySpawner(connected).spread(1)
    child = await place.start([sys.executable, "-c", ENGINE, str(tmp_path)], name="engine")
    tree = await asyncio.to_thread(Tree, tmp_path)
    outer, _ = tree.supervisors()
    if killed == "actor":
        os.kill(psutil.Process(outer).ppid(), signal.SIGKILL)
    elif killed == "server":
        os.kill(child.pid, signal.SIGKILL)
    else:
        await child.stop()
    assert await child.wait() in (-signal.SIGKILL, -signal.SIGTERM)
    await asyncio.to_thread(until, lambda: not tree.left())
    await place.close()
    tree.close()
