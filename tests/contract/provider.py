"""A simulated provider in a process of its own, and what it counts: the truth of what was used."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import urlopen


@contextmanager
def provider(**laws: Any) -> Iterator[str]:
    """Its address, without `/v1`."""
    options = [f"--{name.replace('_', '-')}={value}" for name, value in laws.items()]
    command = [sys.executable, "-m", "peerloom", "simulate-llm", "--port=0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().split(" at ")[1].split("/v1")[0]
        finally:
            server.terminate()


def counts(url: str) -> dict[str, Any]:
    """What it counts at this moment."""
    with urlopen(f"{url}/stats") as answer:
        return json.load(answer)


def stats(url: str) -> dict[str, Any]:
    """Its counts once it has noticed that its clients are gone."""
    for _ in range(250):
        found = counts(url)
        if not found["open_connections"]:
            break
        time.sleep(0.02)
    return found


def tokens(url: str) -> int:
    """Of all prompts and replies."""
    found = stats(url)["tokens"]
    return found["prompt"] + found["completion"]
