"""One Ray cluster for all workers of a test session.

The first worker that needs it starts a keeper, which starts the cluster and writes its address to a folder
that the workers share. Each worker holds a shared lock on a file there for as long as it lives; the keeper
waits for the exclusive lock, so it ends the cluster once every worker has left, however that ended.
"""

import fcntl
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from peerloom.runtime.engines.ray.api import ray
from peerloom.runtime.engines.ray.cluster import connect, start_local, stop

ADDRESS, USERS, NEWCOMERS, LOG = "address", "users.lock", "newcomers.lock", "keeper.log"


@contextmanager
def shared_cluster(folder: Path) -> Generator[str]:
    """Connect this process to the cluster of `folder`, started if need be; gives its address."""
    folder.mkdir(exist_ok=True)
    with (folder / USERS).open("w") as users:
        with (folder / NEWCOMERS).open("w") as newcomers:
            fcntl.flock(newcomers, fcntl.LOCK_EX)
            fcntl.flock(users, fcntl.LOCK_SH)
            if not (folder / ADDRESS).exists():
                _start_keeper(folder)
        address = (folder / ADDRESS).read_text()
        connect(address)
        try:
            yield address
        finally:
            stop()


def keep(folder: Path) -> None:
    """Keep a cluster for as long as it has users; announce on stdout that it is there."""
    start_local()
    (folder / ADDRESS).write_text(ray.get_runtime_context().gcs_address)
    print("ready", flush=True)
    with (folder / USERS).open("w") as users:
        fcntl.flock(users, fcntl.LOCK_EX)
        (folder / ADDRESS).unlink()
    stop()


def _start_keeper(folder: Path) -> None:
    """Start the keeper in a session of its own, so that Ctrl-C does not end the cluster before its users."""
    with (folder / LOG).open("wb") as log:
        keeper = subprocess.Popen(
            [sys.executable, __file__, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    assert keeper.stdout is not None
    with keeper.stdout:
        if not keeper.stdout.readline():
            keeper.wait()
            raise RuntimeError(f"no Ray cluster could be started: {(folder / LOG).read_text()[-2000:]}")
    keeper.returncode = 0  # it outlives this process, of which Popen would warn


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
