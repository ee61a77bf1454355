"""Imports go one way: a part of the package imports what is below it, never what is beside or above."""

from pathlib import Path

import pytest
from source_tree import BENCHMARKS, PACKAGE, Import, Module, expect_none, read_modules, write_package

DOOR = "__init__"
LAYERS = (
    {"errors", "stored", "terminal", "values"},
    {"lookup", "options", "turn"},
    {"task"},
    {"idset"},
    {"workflow", "events"},
    {"protocol"},
    {"source", "services", "sink"},
    {"agents"},
    {"runtime"},
    {"testing"},
    {"observe", "config"},
    {"control", "recipes"},
    {"api"},
    {DOOR},
    {"cli"},
    {"__main__"},
)
LAYER_OF = {part: number for number, layer in enumerate(LAYERS) for part in layer}
NEVER_IMPORTED = {"testing"}
"""What is only there for users' tests."""
OUTSIDE = ("benchmarks", "tests")
"""What imports the package, and is not installed with it."""


def against_the_direction(package: Path) -> list[str]:
    """Every import that does not go down the layers, and every part that has none."""
    modules = read_modules(package)
    parts = {_part(module) for module in modules}
    found = [
        f"{part}: has no layer; place it in LAYERS of {Path(__file__).name} and in docs/architecture.md"
        for part in sorted(parts - LAYER_OF.keys())
    ]
    for module in modules:
        here = _part(module)
        for imported in module.imports():
            found += [
                f"{module.path}:{imported.line}: {name} is not part of the package; move what it needs here"
                for name in OUTSIDE
                if imported.within(name)
            ]
            there = _target(imported, parts)
            if there not in (None, here) and not _allowed(here, there):
                found.append(
                    f"{module.path}:{imported.line}: {here} imports {there}, which is not below it"
                    f" ({_order(here, there)}); move what both need down, or pass it in"
                )
    return list(dict.fromkeys(found))


def _part(module: Module) -> str:
    return module.path.split("/")[0].removesuffix(".py")


def _target(imported: Import, parts: set[str]) -> str | None:
    if not imported.within("peerloom"):
        return None
    names = imported.name.split(".")
    return names[1] if len(names) > 1 and names[1] in parts else DOOR


def _allowed(here: str, there: str) -> bool:
    if here not in LAYER_OF or there not in LAYER_OF:
        return True  # reported once, as a part without a layer
    return LAYER_OF[there] < LAYER_OF[here] and there not in NEVER_IMPORTED


def _order(here: str, there: str) -> str:
    if there in NEVER_IMPORTED:
        return f"nothing imports {there}"
    if LAYER_OF[here] == LAYER_OF[there]:
        return f"{here} and {there} are side by side"
    return f"{here} < {there}"


def test_imports_go_one_way() -> None:
    expect_none(against_the_direction(PACKAGE))


def test_other_systems_are_measured_without_the_package() -> None:
    expect_none(
        [
            f"peers/{module.path}:{imported.line}: another system imports {imported.name}"
            for module in read_modules(BENCHMARKS / "peers")
            for imported in module.imports()
            if imported.within("peerloom") or imported.within("benchmarks")
        ]
    )


@pytest.mark.parametrize(
    ("path", "source", "told"),
    [
        ("task.py", "from peerloom.agents import base", "task.py:1: task imports agents"),
        ("task.py", "from .agents.base import Agent", "task < agents"),
        ("sink/a.py", "from ..source import jsonl", "sink and source are side by side"),
        ("runtime/member/a.py", "import peerloom.config.load", "runtime imports config"),
        ("task.py", "def f():\n    from peerloom import agents", "task.py:2"),
        (
            "task.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from peerloom.agents import A",
            "task.py:3",
        ),
        ("task.py", "import importlib\nimportlib.import_module('peerloom.agents')", "task.py:2"),
        ("agents/a.py", "from peerloom import run", "agents imports __init__"),
        ("cli/a.py", "import peerloom.testing", "nothing imports testing"),
        ("cli/a.py", "from benchmarks import harness", "cli/a.py:1: benchmarks is not part of the package"),
        ("utils.py", "", "utils: has no layer"),
    ],
)
def test_an_import_against_the_direction_is_named(tmp_path: Path, path: str, source: str, told: str) -> None:
    files = {f"{part}/__init__.py": "" for part in ("agents", "config", "source")}
    package = write_package(tmp_path, {"__init__.py": "", "testing.py": "", **files, path: source})
    (violation,) = against_the_direction(package)
    assert told in violation


def test_imports_down_the_layers_are_fine(tmp_path: Path) -> None:
    package = write_package(
        tmp_path,
        {
            "__init__.py": "from .api import run",
            "api.py": "from peerloom.runtime import loop",
            "runtime/__init__.py": "",
            "runtime/loop.py": "from peerloom import task\nfrom . import mailbox\nimport asyncio",
            "runtime/mailbox.py": "",
            "task.py": "",
            "cli/__init__.py": "from peerloom import run",
        },
    )
    assert against_the_direction(package) == []
