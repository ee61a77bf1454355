"""Who may import what from outside: each heavy dependency has one home, and some have none."""

from pathlib import Path

import pytest
from source_tree import BENCHMARKS, PACKAGE, expect_none, read_modules, write_package

HOMES = {
    "ray": ("runtime/engines/ray/",),
    "omegaconf": ("cli/", "config/"),
    "gguf": ("services/llm/llamacpp/requantize.py",),
    "xllamacpp": ("services/llm/llamacpp/server.py",),
}
BANNED = {
    "litellm": "providers are reached over HTTP by services/llm",
    **dict.fromkeys(
        ("pickle", "cloudpickle", "dill", "marshal", "shelve"),
        "what travels or rests on disk is msgspec with a schema",
    ),
}
PROTOCOL_BANNED = ("asyncio", "threading", "time", "datetime", "random")


def misplaced(package: Path) -> list[str]:
    """Every import of a foreign module outside its home."""
    found: list[str] = []
    for module in read_modules(package):
        for imported in module.imports():
            where = f"{module.path}:{imported.line}"
            for name, homes in HOMES.items():
                if imported.within(name) and not module.path.startswith(homes):
                    found.append(f"{where}: only {' and '.join(homes)} may import {name}")
            for name, instead in BANNED.items():
                if imported.within(name):
                    found.append(f"{where}: {name} is not used here: {instead}")
            if module.path.startswith("protocol/") and any(map(imported.within, PROTOCOL_BANNED)):
                found.append(
                    f"{where}: protocol/ has no loop, clock or chance of its own,"
                    f" so not {imported.name}: take it as an argument"
                )
    return found


def test_foreign_modules_stay_in_their_homes() -> None:
    expect_none(misplaced(PACKAGE))


def test_benchmarks_import_no_module_that_has_its_home_in_the_package() -> None:
    peers = "peers/"  # other systems, which import what they are made of
    expect_none([violation for violation in misplaced(BENCHMARKS) if not violation.startswith(peers)])


@pytest.mark.parametrize(
    ("path", "source", "told"),
    [
        ("runtime/engines/local.py", "import ray", "only runtime/engines/ray/ may import ray"),
        ("agents/a.py", "from ray.util import queue", "only runtime/engines/ray/"),
        ("agents/a.py", "async def f():\n    import ray.actor", "agents/a.py:2"),
        ("runtime/a.py", "from omegaconf import OmegaConf", "only cli/ and config/ may import omegaconf"),
        ("recipes/coral/a.py", "import gguf", "only services/llm/llamacpp/requantize.py"),
        ("services/llm/llamacpp/service.py", "import xllamacpp", "only services/llm/llamacpp/server.py"),
        ("services/llm/a.py", "import litellm", "litellm is not used"),
        ("runtime/engines/ray/a.py", "import pickle", "pickle is not used"),
        ("sink/a.py", "from importlib import import_module\nimport_module('dill')", "sink/a.py:2"),
        ("protocol/a.py", "from time import monotonic", "not time.monotonic"),
        ("protocol/a.py", "import asyncio", "take it as an argument"),
        ("protocol/a.py", "import random", "take it as an argument"),
    ],
)
def test_a_misplaced_import_is_named(tmp_path: Path, path: str, source: str, told: str) -> None:
    (violation,) = misplaced(write_package(tmp_path, {path: source}))
    assert told in violation


def test_imports_at_home_are_fine(tmp_path: Path) -> None:
    package = write_package(
        tmp_path,
        {
            "runtime/engines/ray/a.py": "import ray\nfrom ray import actor",
            "config/a.py": "from omegaconf import OmegaConf",
            "services/llm/llamacpp/server.py": "import xllamacpp",
            "sink/a.py": "import time, rayon",
        },
    )
    assert misplaced(package) == []
