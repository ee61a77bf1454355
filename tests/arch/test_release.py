"""The files around the package agree with each other: version, changelog, pinned dependencies."""

import re
import tomllib
from typing import Any

import pytest
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from source_tree import ROOT, expect_none


def newest_version(changelog: str) -> str | None:
    """The version of the topmost section of a changelog, `Unreleased` aside."""
    match = re.search(r"^## \[(?!Unreleased\])([^\]]+)\]", changelog, re.M)
    return match[1] if match else None


def badly_pinned(constraints: str, requirements: list[str]) -> list[str]:
    """Every line that is more than a pinned version, and every requirement that no pin meets."""
    found: list[str] = []
    pins: dict[str, str] = {}
    for number, line in enumerate(constraints.splitlines(), 1):
        if match := re.fullmatch(r"([\w.-]+)==([\w.]+)(?: ; [^;]+)?", line):
            pins[canonicalize_name(match[1])] = match[2]
        elif line and not line.startswith("# "):
            found.append(f"constraints.txt:{number}: {line!r} is not name==version")
    for text in requirements:
        wanted = Requirement(text)
        pinned = pins.get(canonicalize_name(wanted.name))
        if pinned is None or not wanted.specifier.contains(pinned, prereleases=True):
            found.append(f"pyproject.toml: {text} is pinned to {pinned} in constraints.txt")
    return found


def _pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def test_the_changelog_tells_of_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert newest_version(changelog) == _pyproject()["project"]["version"]


def test_the_wheel_holds_the_package_and_nothing_else() -> None:
    files = WheelBuilder(str(ROOT)).recurse_included_files()
    assert {file.distribution_path.split("/")[0] for file in files} == {"peerloom"}


def test_every_dependency_is_pinned() -> None:
    project = _pyproject()
    groups = project["dependency-groups"].values()
    requirements = [*project["project"]["dependencies"], *(each for group in groups for each in group)]
    expect_none(badly_pinned((ROOT / "constraints.txt").read_text("utf-8"), requirements))


@pytest.mark.parametrize(
    ("changelog", "version"),
    [
        ("# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2026-12-01\n\n## [0.1.0]\n", "0.2.0"),
        ("## [0.1.0] - unreleased\n", "0.1.0"),
        ("## [Unreleased]\n- version [0.1.0] of all\n", None),
    ],
)
def test_the_newest_version_of_a_changelog(changelog: str, version: str | None) -> None:
    assert newest_version(changelog) == version


@pytest.mark.parametrize(
    ("constraints", "told"),
    [
        ("ray>=2.56", "constraints.txt:1: 'ray>=2.56' is not name==version"),
        ("ray==2.60.0\n--pre", "constraints.txt:2: '--pre' is not name==version"),
        ("ray @ https://example.org/ray.whl", "is not name==version"),
        ("ray==2.55.0", "ray[default]>=2.56 is pinned to 2.55.0"),
        ("# none\nrich==15.0.0", "ray[default]>=2.56 is pinned to None"),
    ],
)
def test_a_bad_pin_is_named(constraints: str, told: str) -> None:
    assert told in badly_pinned(constraints, ["ray[default]>=2.56"])[0]


def test_good_pins_are_fine() -> None:
    constraints = '# note\nPyYAML==6.0.3\npre_commit==4.7.0 ; python_version >= "3.11"\n'
    assert badly_pinned(constraints, ["pyyaml>=6", "pre-commit"]) == []
