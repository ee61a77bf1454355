"""`peerloom bench install`: an environment of its own for each peer, from pinned requirements.

A mark is left when everything is there, with what it took, so that an environment that was begun and never
finished is made anew, and one that is finished is left alone until its requirements change.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson

from peerloom.bench.house.peers import PEERS, Peer, adapters, environment, known
from peerloom.bench.points import BenchError

MARK = "installed.json"
REQUIREMENTS = "requirements.txt"
WITHOUT_DEPENDENCIES = "requirements-no-deps.txt"
"""Packages whose own demands would bring gigabytes that the work does not touch."""


def install(names: Sequence[str], tell: Callable[[str], None]) -> None:
    """Make the environments of these peers, or of all.

    Raises:
        ConfigError: if there is no such peer.
        BenchError: if a peer cannot be installed; the others are.
    """
    homes = dict.fromkeys(known(name).home for name in names or PEERS)
    failed: list[str] = []
    for home in homes:
        try:
            tell(_install(PEERS[home], tell))
        except (subprocess.CalledProcessError, OSError) as error:
            output: str = getattr(error, "stderr", "") or str(error)
            failed.append(f"{home}: {' '.join(output.split())[-300:]}")
    if failed:
        raise BenchError("; ".join(failed))


def installed(peer: Peer) -> dict[str, float | str]:
    """What the installation of a peer took, seconds and megabytes; empty if it is not there."""
    mark = environment(peer) / MARK
    return orjson.loads(mark.read_bytes()) if mark.exists() else {}


def _install(peer: Peer, tell: Callable[[str], None]) -> str:
    folder, home = adapters() / peer.name, environment(peer)
    wanted = "".join(path.read_text() for path in _lists(folder))
    mark = home / MARK
    if mark.exists() and orjson.loads(mark.read_bytes()).get("requirements") == wanted:
        return f"{peer.name}: there already, {home}"
    tell(f"{peer.name}: installing into {home}")
    shutil.rmtree(home, ignore_errors=True)
    begun = time.time()
    _run([sys.executable, "-m", "venv", str(home)])
    pip = [str(home / "bin/python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    for path in _lists(folder):
        more = ["--no-deps"] if path.name == WITHOUT_DEPENDENCIES else []
        _run([*pip, *more, "--requirement", str(path)])
    seconds, megabytes = round(time.time() - begun, 1), _megabytes(home)
    mark.write_bytes(orjson.dumps({"requirements": wanted, "seconds": seconds, "megabytes": megabytes}))
    return f"{peer.name}: {seconds:,.0f} s, {megabytes:,} MB"


def _lists(folder: Path) -> list[Path]:
    """Its requirements, in the order they are installed."""
    paths = (folder / REQUIREMENTS, folder / WITHOUT_DEPENDENCIES)
    return [path for path in paths if path.exists()]


def _run(argv: Sequence[str]) -> None:
    subprocess.run(argv, check=True, capture_output=True, text=True)


def _megabytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()) >> 20
