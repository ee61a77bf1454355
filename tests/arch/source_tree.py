"""The source tree as the architecture tests see it: modules, parsed, and what they import."""

import ast
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "peerloom"
BENCHMARKS = ROOT / "benchmarks"


class Import(NamedTuple):
    """One imported name, absolute, and the line it stands on.

    `from a.b import c` is the name `a.b.c`, for only the file system knows whether `c` is a module.
    """

    line: int
    name: str

    def within(self, package: str) -> bool:
        return self.name == package or self.name.startswith(package + ".")


class Module:
    """One Python file below a folder; `path` is relative to that folder, with slashes."""

    def __init__(self, folder: Path, file: Path) -> None:
        self.path = file.relative_to(folder).as_posix()
        self.source = file.read_text("utf-8")
        self._package = (folder.name, *file.relative_to(folder).parts[:-1])

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source, self.path)

    def imports(self) -> Iterator[Import]:
        """Everything imported anywhere in the file: at the top, in functions, for type checking, by name."""
        for node in ast.walk(self.tree):
            match node:
                case ast.Import():
                    yield from (Import(node.lineno, alias.name) for alias in node.names)
                case ast.ImportFrom():
                    base = self._absolute(node)
                    yield from (Import(node.lineno, f"{base}.{alias.name}") for alias in node.names)
                case ast.Call(
                    func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
                    args=[ast.Constant(value=str(name)), *_],
                ):
                    yield Import(node.lineno, name)

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        above = self._package[: len(self._package) - node.level + 1]
        return ".".join((*above, *([node.module] if node.module else [])))


def read_modules(folder: Path) -> list[Module]:
    """All Python files below a folder, by path."""
    return [Module(folder, file) for file in sorted(folder.rglob("*.py"))]


def expect_none(violations: list[str]) -> None:
    """Fail with one line for each violation, all of them in view."""
    if violations:
        pytest.fail("\n".join(violations), pytrace=False)


def write_package(parent: Path, files: Mapping[str, str]) -> Path:
    """A package named peerloom with these files (path: source), to see a rule broken."""
    package = parent / "peerloom"
    for path, source in files.items():
        file = package / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source, "utf-8")
    return package
