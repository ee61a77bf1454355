"""`python -m benchmarks install`: an environment of its own for each peer, from pinned requirements.

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

from benchmarks.comparison.peers import ADAPTERS, PEERS, Peer, environment, known
from benchmarks.harness.points import BenchError

MARK = "installed.json"


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
    """Return the seconds and megabytes that the installation of a peer took; empty if there is none."""
    mark = environment(peer) / MARK
    return orjson.loads(mark.read_bytes()) if mark.exists() else {}


def _install(peer: Peer, tell: Callable[[str], None]) -> str:
    requirements, home = ADAPTERS / peer.name / "requirements.txt", environment(peer)
    wanted = requirements.read_text()
    mark = home / MARK
    if mark.exists() and orjson.loads(mark.read_bytes()).get("requirements") == wanted:
        return f"{peer.name}: there already, {home}"
    tell(f"{peer.name}: installing into {home}")
    shutil.rmtree(home, ignore_errors=True)
    begun = time.time()
    _run([sys.executable, "-m", "venv", str(home)])
    pip = [str(home / "bin/python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    _run([*pip, "--requirement", str(requirements)])
    seconds, megabytes = round(time.time() - begun, 1), _megabytes(home)
    mark.write_bytes(orjson.dumps({"requirements": wanted, "seconds": seconds, "megabytes": megabytes}))
    return f"{peer.name}: {seconds:,.0f} s, {megabytes:,} MB"


def _run(argv: Sequence[str]) -> None:
    subprocess.run(argv, check=True, capture_output=True, text=True)


def _megabytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()) >> 20
