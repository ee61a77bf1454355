"""Children: started, heard, stopped, and never left behind."""

import os
import select
import signal
import sys
import time
from pathlib import Path

import pytest

from peerloom.errors import ServiceError
from peerloom.services.processes.spawn import ChildProcess, LocalSpawner

PATIENCE = 30.0  # seconds, for a busy machine


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "child.log"


async def python(code: str, log: Path | None = None, **options) -> ChildProcess:
    return await LocalSpawner().start([sys.executable, "-c", code], name="test", log=log, **options)


def said(log: Path) -> str:
    """What the child has written, as soon as it has written anything."""
    deadline = time.monotonic() + PATIENCE
    while not (text := log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return text


def gone(pid: int) -> bool:
    """Whether a process ends, within some patience."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([pidfd], [], [], PATIENCE)[0])
    finally:
        os.close(pidfd)


async def test_wait_gives_the_exit_code() -> None:
    child = await python("raise SystemExit(7)")
    assert await child.wait() == 7
    assert await child.wait() == 7
    await child.stop()


async def test_output_is_appended_to_the_log(log: Path) -> None:
    for word in ("out", "err"):
        child = await python(f"import sys; print('{word}', file=sys.std{word})", log)
        await child.wait()
    assert said(log) == "out\nerr\n"


async def test_environment_is_added_to_ours(log: Path) -> None:
    child = await python("import os; print(os.environ['MINE'], 'PATH' in os.environ)", log, env={"MINE": "1"})
    await child.wait()
    assert said(log) == "1 True\n"


async def test_stop_asks_first(log: Path) -> None:
    code = "import signal; signal.signal(15, lambda *_: exit(3)); print('up', flush=True); signal.pause()"
    child = await python(code, log)
    said(log)
    await child.stop()
    assert await child.wait() == 3


async def test_stop_kills_who_does_not_listen(log: Path) -> None:
    code = "import signal; signal.signal(15, signal.SIG_IGN); print('up', flush=True); signal.pause()"
    child = await python(code, log)
    said(log)
    await child.stop(grace=0.01)
    assert await child.wait() == -signal.SIGKILL


async def test_stop_takes_what_the_child_started(log: Path) -> None:
    child = await LocalSpawner().start(["sh", "-c", "sleep 1000 & echo $!; wait"], name="test", log=log)
    grandchild = int(said(log))
    await child.stop()
    assert gone(grandchild)


async def test_a_process_that_is_stopped_while_it_starts_ends_by_that_signal() -> None:
    for _ in range(5):
        child = await LocalSpawner().start(["sleep", "1000"], name="test")
        await child.stop()
        assert await child.wait() == -signal.SIGTERM


async def test_a_ctrl_c_does_not_reach_it() -> None:
    child = await python("import signal; signal.pause()")
    assert os.getpgid(child.pid) == child.pid != os.getpgrp()
    await child.stop()


async def test_no_such_program() -> None:
    with pytest.raises(ServiceError, match="engine: cannot start 'no-such-program'"):
        await LocalSpawner().start(["no-such-program"], name="engine")


async def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ServiceError, match=r"engine: cannot write its log .*file/child\.log"):
        await LocalSpawner().start(["true"], name="engine", log=tmp_path / "file" / "child.log")


async def test_a_program_that_is_none(tmp_path: Path, log: Path) -> None:
    (tmp_path / "data").write_text("no program")
    (tmp_path / "data").chmod(0o755)
    child = await LocalSpawner().start([str(tmp_path / "data")], name="engine", log=log)
    assert await child.wait() == 1
    assert f"cannot start {tmp_path}/data: Exec format error" in await child.output()
