"""A simulated provider in a process of its own, dialogues that ask it, and what it counts: the truth."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import peerloom
from peerloom.agents.llm import LLMAgent
from peerloom.workflow import Sequence

ROLES = ("solver", "critic", "judge")


@contextmanager
def provider(**behavior: Any) -> Iterator[str]:
    """Its address, without `/v1`."""
    options = [f"--{name.replace('_', '-')}={value}" for name, value in behavior.items()]
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


def dialogues(
    url: str, run_dir: Path, engine: str, tasks: int, *, in_flight: int, roles: Any = ROLES, **config: Any
) -> Any:
    """A run of so many dialogues, a call of each role, one after the other."""
    return peerloom.run(
        workflow=Sequence(*roles),
        agents={role: LLMAgent(opening="Topic {{ input.n }}", dialogue=True) for role in roles},
        source=[{"n": number} for number in range(tasks)],
        llm="openai",
        engine=engine,
        in_flight=in_flight,
        config={"llm.base_url": f"{url}/v1", **config},
        run_dir=run_dir,
        progress=False,
    )
