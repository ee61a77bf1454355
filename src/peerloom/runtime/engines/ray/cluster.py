"""Connect to a Ray cluster, or start one that ends with this process."""

import asyncio
import logging
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
from typing import Any

from peerloom.errors import EngineError
from peerloom.runtime.engines.ray import reaper
from peerloom.runtime.engines.ray.api import AuthenticationError, ray
from peerloom.runtime.engines.ray.probe import check_local, check_reachable, token_refused

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_ERROR = re.compile(r"[\w.]*(Error|Exception)\b.*:")

OBJECT_STORE_BYTES = 256 << 20  # for messages only; no data of a run stays in the object store

_reapers: list[subprocess.Popen[bytes]] = []


def cluster_address(address: str | None) -> str | None:
    """Return the address of the cluster that `connect` would use; None if it would start one."""
    where = address or os.environ.get("RAY_ADDRESS")
    return None if where == "local" else where or None


def connect(address: str | None, *, checked: bool = False) -> bool:
    """Connect to `address`, else to `RAY_ADDRESS`, else start a local cluster. Blocks.

    Return False if the process was connected already. `checked` says whether the caller has called
    `check_reachable`.

    Raises:
        EngineError: if there is no cluster at the address, or none can be started here.
    """
    if ray.is_initialized():
        return False
    where = cluster_address(address)
    if where and not checked:
        asyncio.run(check_reachable(where))
    elif not where:
        check_local()
    try:
        if where:
            _init(address=where)
        else:
            start_local()
    except Exception as error:  # Ray raises a bare Exception too, e.g. for a node that does not start
        stop()
        if where and isinstance(error, AuthenticationError):
            raise token_refused(where) from error
        raise EngineError(
            f"cannot use Ray at {where or 'a local cluster'}: {reason(error)}. "
            "Check RAY_ADDRESS, or unset it for a local cluster, or choose engine=local"
        ) from error
    return True


def start_local() -> None:
    """Start a cluster on this machine; `local`, since a bare init may attach to a dead one."""
    mark = secrets.token_hex(8)
    command = [sys.executable, "-I", "-S", reaper.__file__, mark]
    _reapers.append(subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True))
    os.environ[reaper.MARK] = mark
    # Ray's default is 15: beside a busy llama.cpp server the members would get hardly any CPU time.
    os.environ.setdefault("RAY_worker_niceness", "0")
    try:
        _init(address="local", include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES)
    finally:
        del os.environ[reaper.MARK]


def take_sigterm_back() -> None:
    """Reinstall Python's handler of SIGTERM, if this is the main thread.

    Ray installs its own, which aborts the process 3 seconds after it has passed the signal on.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def node_address() -> str:
    """Return the address of this host for other hosts; loopback if this process started the cluster."""
    return "127.0.0.1" if _reapers else ray.util.get_node_ip_address()


def stop() -> None:
    """Disconnect, and end a cluster that this process has started."""
    ray.shutdown()
    while _reapers:
        with _reapers.pop() as process:
            process.communicate()


def reason(error: BaseException) -> str:
    """Extract the line that names the error from a long message of Ray."""
    lines = [line.strip() for line in _COLOURS.sub("", str(error)).splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR.match(line)]
    return (errors or lines or [type(error).__name__])[-1 if errors else 0][:300]


def _init(**options: Any) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(namespace="peerloom", log_to_driver=False, logging_level=logging.ERROR, **options)
