"""Files and functions stay small enough to be read at one sitting, and every module says what it is."""

import ast
from pathlib import Path

import pytest
from source_tree import BENCHMARKS, PACKAGE, ROOT, expect_none, read_modules, write_package

FILE_LINES = 400
FUNCTION_LINES = 60


def over_budget(folder: Path) -> list[str]:
    """Every file and function that is too long."""
    found: list[str] = []
    for module in read_modules(folder):
        lines = len(module.source.splitlines())
        if lines > FILE_LINES:
            found.append(f"{module.path}: {lines} lines, at most {FILE_LINES}: split it by idea")
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES:
                    found.append(
                        f"{module.path}:{node.lineno}: {node.name} has {length} lines,"
                        f" at most {FUNCTION_LINES}: name its steps"
                    )
    return found


def undescribed(folder: Path) -> list[str]:
    """Every module without a docstring."""
    return [
        f"{module.path}: no docstring; say in a few lines how it works"
        for module in read_modules(folder)
        if not (ast.get_docstring(module.tree) or "").strip()
    ]


def ambiguous(folder: Path) -> list[str]:
    """Every class name that is defined more than once."""
    homes: dict[str, list[str]] = {}
    for module in read_modules(folder):
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(f"{module.path}:{node.lineno}")
    return [
        f"class {name} is defined in {' and '.join(places)}: give each a name of its own"
        for name, places in homes.items()
        if len(places) > 1
    ]


@pytest.mark.parametrize("folder", ["src", "tests", "benchmarks"])
def test_files_and_functions_are_small(folder: str) -> None:
    expect_none(over_budget(ROOT / folder))


@pytest.mark.parametrize("folder", [PACKAGE, BENCHMARKS], ids=lambda folder: folder.name)
def test_every_module_has_a_docstring(folder: Path) -> None:
    expect_none(undescribed(folder))


def test_a_long_file_is_named(tmp_path: Path) -> None:
    package = write_package(tmp_path, {"fits.py": "pass\n" * 400, "sink/long.py": "pass\n" * 401})
    assert over_budget(package) == ["sink/long.py: 401 lines, at most 400: split it by idea"]


@pytest.mark.parametrize("keyword", ["def", "async def"])
def test_a_long_function_is_named(tmp_path: Path, keyword: str) -> None:
    fits = f"{keyword} fits():\n" + "    pass\n" * 59
    method = f"class A:\n    {keyword} long(self):\n" + "        pass\n" * 60
    package = write_package(tmp_path, {"a.py": fits + method})
    assert over_budget(package) == ["a.py:62: long has 61 lines, at most 60: name its steps"]


def test_a_module_without_docstring_is_named(tmp_path: Path) -> None:
    package = write_package(tmp_path, {"a.py": '"""What."""', "b.py": "x = 1", "c.py": '""" """'})
    assert [line.split(":")[0] for line in undescribed(package)] == ["b.py", "c.py"]


def test_class_names_are_unique() -> None:
    expect_none(ambiguous(PACKAGE))


def test_a_class_name_used_twice_is_noticed(tmp_path: Path) -> None:
    package = write_package(
        tmp_path, {"one.py": "class Row:\n    pass\n", "two.py": "class Row:\n    pass\n"}
    )
    assert ambiguous(package) == [
        "class Row is defined in one.py:1 and two.py:1: give each a name of its own"
    ]
