"""The machine a measurement was made on, and the versions of what was measured."""

import json
import os
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import psutil

from benchmarks.comparison.peers import PEERS, python

SHOWN = {
    "matrix": ("fair-matrix", "ray"),
    "aiohttp": ("aiohttp", "orjson", "uvloop"),
    "openai": ("openai",),
    "langgraph": ("langgraph", "langchain-openai"),
    "autogen": ("autogen-agentchat", "openai"),
    "distilabel": ("distilabel", "openai"),
    "datadesigner": ("data-designer",),
    "curator": ("bespokelabs-curator",),
    "raydata": ("ray", "aiohttp"),
}
_ASK = "import sys, json, importlib.metadata as m; print(json.dumps([m.version(n) for n in sys.argv[1:]]))"


def machine() -> dict[str, str]:
    """Describe this machine; `load` tells whether it was busy at the time."""
    memory = psutil.virtual_memory().total / 2**30
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",  # without the build's name
        "python": platform.python_version(),
        "peerloom": version("peerloom"),
        "ray": version("ray"),
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def peer_versions(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of the peers that are installed."""
    found: dict[str, str] = {}
    for name in names:
        peer = PEERS.get(name)
        packages = SHOWN.get(peer.home if peer else "", ())
        if peer is None or not packages or not python(peer).exists():
            continue
        command = [str(python(peer)), "-c", _ASK, *packages]
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        if asked.returncode == 0:
            versions: list[str] = json.loads(asked.stdout)
            found[name] = ", ".join(f"{p} {v}" for p, v in zip(packages, versions, strict=True))
    return found


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
