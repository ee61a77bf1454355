"""Packages inside packages depend on each other in one direction, and none has too many modules."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from source_tree import PACKAGE, expect_none, read_modules, write_package

MODULES = 13


def cycles(package: Path) -> list[str]:
    """Every import that closes a cycle between packages.

    A package depends on those that its modules import from. A module that stands beside packages counts as
    one: `services/secret.py` may be imported by `services/llm/`, which `services/fleets/` imports.
    """
    modules = read_modules(package)
    parents = {parent.as_posix() for module in modules for parent in Path(module.path).parent.parents}
    paths = {module.path for module in modules}
    edges: dict[tuple[str, str], str] = {}
    for module in modules:
        here = _unit(module.path, parents)
        for imported in module.imports():
            if (target := _path(imported.name, paths)) and (there := _unit(target, parents)) != here:
                edges.setdefault((here, there), f"{module.path}:{imported.line}")
    reached = _reached(edges)
    found = [
        f"{where}: {here} imports {there}, which leads back to it: move what both need below them"
        for (here, there), where in edges.items()
        if here in reached[there]
    ]
    return sorted(found)


def _unit(path: str, parents: set[str]) -> str:
    """The package of a module, or the module itself if it stands beside packages."""
    folder = Path(path).parent.as_posix()
    alone = folder in parents and not path.endswith("__init__.py")
    return path.removesuffix(".py") if alone else folder


def _path(name: str, paths: set[str]) -> str | None:
    """The module that an imported name is, or is in."""
    head, *names = name.split(".")
    if head != "peerloom":
        return None
    while names:
        path = "/".join(names)
        for candidate in (f"{path}.py", f"{path}/__init__.py"):
            if candidate in paths:
                return candidate
        names.pop()
    return None  # the public names, which nothing below uses


def _reached(edges: Mapping[tuple[str, str], str]) -> dict[str, set[str]]:
    """All that each can be followed to."""
    after: dict[str, set[str]] = {}
    for here, there in edges:
        after.setdefault(here, set()).add(there)
        after.setdefault(there, set())
    changed = True
    while changed:
        changed = False
        for here, found in after.items():
            more = {further for there in found for further in after[there]} - found
            changed |= bool(more)
            after[here] = found | more
    return after


def crowded(package: Path) -> list[str]:
    """Every folder with too many modules."""
    counts = Counter(Path(module.path).parent.as_posix() for module in read_modules(package))
    return [
        f"{folder}: {count} modules, at most {MODULES}: split it by idea"
        for folder, count in sorted(counts.items())
        if count > MODULES
    ]


def test_packages_depend_in_one_direction() -> None:
    expect_none(cycles(PACKAGE))


def test_folders_are_small() -> None:
    expect_none(crowded(PACKAGE))


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (
            {"a/b/x.py": "from peerloom.a.c import y", "a/c/y.py": "", "a/c/z.py": "import peerloom.a.b.x"},
            ["a/b/x.py:1: a/b imports a/c, which leads back to it", "a/c/z.py:1: a/c imports a/b"],
        ),
        (
            {"a/x.py": "from peerloom.a.c import y", "a/c/y.py": "def f():\n    from peerloom.a.x import z"},
            ["a/c/y.py:2: a/c imports a/x", "a/x.py:1: a/x imports a/c"],
        ),
    ],
)
def test_a_cycle_is_named(tmp_path: Path, files: dict[str, str], told: list[str]) -> None:
    found = cycles(write_package(tmp_path, files))
    assert len(found) == len(told)
    assert all(text in line for text, line in zip(told, found, strict=True))


def test_a_line_of_packages_is_fine(tmp_path: Path) -> None:
    files = {"a/x.py": "", "a/b/y.py": "import peerloom.a.x", "a/z.py": "from peerloom.a.b.y import f"}
    assert cycles(write_package(tmp_path, files)) == []


def test_a_crowded_folder_is_named(tmp_path: Path) -> None:
    package = write_package(tmp_path, {f"sink/m{number}.py": "" for number in range(MODULES + 1)})
    assert crowded(package) == ["sink: 14 modules, at most 13: split it by idea"]
