"""The peers: what they are, which work they can express, and why not the rest.

Each has a folder `benchmarks/peers/NAME` with `run.py`, which does the work, and `requirements.txt`, which
pins the environment that `python -m benchmarks install` makes for it. They know nothing of Peerloom.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

from benchmarks.harness.process import Program
from peerloom.errors import ConfigError

ADAPTERS = Path(__file__).parents[1] / "peers"
"""Their folders."""

_ONE_CALL = "it shows what one call costs as its message grows"
_NO_LOOPS = "its dialogue is a fixed set of columns: no turns in a loop"
_OWN_MODELS = "its agents call models that its own cluster has started, no address of somebody else's"
_NEEDS_MODEL = "it does nothing without a model"
_AS_OPENAI = "its loop would be that of `openai`"


@dataclass(frozen=True)
class Peer:
    """A system that Peerloom is compared with.

    Args:
        name: of its folder.
        title: for people.
        works: what it is measured on.
        cannot: the rest, and why.
        environment: whose it runs in; default its own.
    """

    name: str
    title: str
    works: frozenset[str]
    cannot: Mapping[str, str] = field(default_factory=dict[str, str])
    environment: str = ""

    @property
    def home(self) -> str:
        """The name of its environment."""
        return self.environment or self.name

    def reason(self, work: str) -> str:
        """Return why it is not measured on a workload; empty if it is."""
        return "" if work in self.works else self.cannot[work]


def _peer(name: str, title: str, works: str, *, environment: str = "", **cannot: str) -> Peer:
    reasons = {work.replace("_", "-"): why for work, why in cannot.items()}
    return Peer(name, title, frozenset(works.split()), reasons, environment)


PEERS = {
    peer.name: peer
    for peer in (
        _peer(
            "matrix",
            "Matrix (fair-matrix)",
            "hops",
            mini_coral=_OWN_MODELS,
            nr=_OWN_MODELS,
            tau=_OWN_MODELS,
        ),
        _peer(
            "aiohttp",
            "asyncio + aiohttp loop",
            "mini-coral nr",
            hops="a function call is no hop",
            tau="a loop of the same shape as mini-coral's; threads are what is compared",
        ),
        _peer("openai", "asyncio + openai client", "mini-coral nr", hops=_NEEDS_MODEL, tau=_AS_OPENAI),
        _peer(
            "threads",
            "central loop in threads",
            "tau",
            environment="openai",
            hops=_NEEDS_MODEL,
            mini_coral=_AS_OPENAI,
            nr=_AS_OPENAI,
        ),
        _peer(
            "langgraph",
            "LangGraph + ChatOpenAI",
            "mini-coral",
            hops=_NEEDS_MODEL,
            nr=_AS_OPENAI,
            tau=_AS_OPENAI,
        ),
        _peer("autogen", "AutoGen agentchat", "mini-coral", hops=_NEEDS_MODEL, nr=_AS_OPENAI, tau=_AS_OPENAI),
        _peer(
            "distilabel",
            "distilabel",
            "mini-coral",
            hops=_NEEDS_MODEL,
            nr="a reply's longest length is its task's, not its row's",
            tau=_NO_LOOPS,
        ),
        _peer(
            "datadesigner",
            "NeMo Data Designer",
            "mini-coral",
            hops=_NEEDS_MODEL,
            nr="a reply's longest length is its model's, not its row's",
            tau=_NO_LOOPS,
        ),
        _peer(
            "curator",
            "Bespoke Curator",
            "mini-coral",
            hops=_NEEDS_MODEL,
            nr="a reply's longest length is its block's, not its row's",
            tau=_NO_LOOPS,
        ),
        _peer(
            "raydata",
            "Ray Data stages",
            "mini-coral nr",
            hops=_NEEDS_MODEL,
            tau="its stages are fixed: no turns in a loop",
        ),
        _peer(
            "raycall",
            "plain Ray call",
            "calls",
            environment="raydata",
            hops=_ONE_CALL,
            mini_coral=_ONE_CALL,
            nr=_ONE_CALL,
            tau=_ONE_CALL,
        ),
    )
}


def known(name: str) -> Peer:
    """Return a peer by its name.

    Raises:
        ConfigError: if there is none.
    """
    if name not in PEERS:
        raise ConfigError(f"there is no peer {name!r}; there are {', '.join(PEERS)}")
    return PEERS[name]


def environment(peer: Peer) -> Path:
    """Return the folder of a peer's virtual environment, in `PEERLOOM_BENCH_CACHE` or the user's cache."""
    where = os.environ.get("PEERLOOM_BENCH_CACHE")
    root = Path(where) if where else Path(platformdirs.user_cache_dir("peerloom")) / "bench"
    return root / peer.home


def python(peer: Peer) -> Path:
    """Return the path of a peer's Python."""
    return environment(peer) / "bin/python"


def absent(peer: Peer) -> str:
    """Return why a peer cannot be run now; empty if it can."""
    return "" if python(peer).exists() else f"not installed: python -m benchmarks install {peer.home}"


def program(peer: Peer) -> Program:
    """Return the program that is started to measure a peer."""
    return Program([str(python(peer)), str(ADAPTERS / peer.name / "run.py")], {"PYTHONPATH": ""})
