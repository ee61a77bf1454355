"""Check README, docs, and the other pages: links, lists, and the names of modules, classes, and keys."""

import re
from pathlib import Path
from typing import Any

import pytest

import peerloom
from peerloom.config.schema import Config
from peerloom.config.sections.base import fields_of
from peerloom.config.sections.llm import LLM_GROUPS
from peerloom.config.serve import ENGINES

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "AGENTS.md", "llms.txt")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
MAPS = [
    ROOT / "docs" / f"{page}.md" for page in ("architecture", "calls", "concepts", "exactly_once", "journal")
]
MAPS += [ROOT / "CONTRIBUTING.md"]
"""The pages that say where something is in the code."""
SOURCES = ("src", "tests", "benchmarks")
MODULE = re.compile(r"(?<![\w/<>.-])([\w/]+\.py)\b")
FOLDER = re.compile(r"`(?!docs|site)([\w/]+)/`")
CLASS = re.compile(r"\b[A-Z][a-z]+[A-Z]\w*(?=[`. ])")
USERS_FILES = {
    "mine.py",
    "lab.py",
    "squares.py",
    "csv_file.py",
    "tally.py",
    "dice.py",
    "throw.py",
    "definitions.py",
}
ELSEWHERE = {"ModelAPI", "MyDialect", "TaskGroup", "MessagePack"}
LINK = re.compile(r"\]\(([^)\s]+)\)")


def keys_of(section: type[Any]) -> set[str]:
    return set(fields_of(section)) - {"kind", "engine"}


def test_every_key_is_in_the_documents() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    marked = set(re.findall(r"[\w]+", " ".join(re.findall(r"`([^`\n]+)`", page))))
    keys = {key for section in (Config, *LLM_GROUPS.values(), *ENGINES.values()) for key in keys_of(section)}
    assert keys - marked == set()


@pytest.mark.parametrize(("index", "pages"), [("README.md", "*.md"), ("llms.txt", "**/*.md")])
def test_every_page_is_listed(index: str, pages: str) -> None:
    listed = set(LINK.findall((ROOT / index).read_text()))
    assert {str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob(pages)} - listed == set()


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    listed = set(re.findall(r"[-:] (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")} - listed == set()


def test_every_public_name_is_in_the_reference() -> None:
    reference = "".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    names = set(re.findall(r"^::: peerloom\.([\w.]+)$", reference, re.MULTILINE))
    assert set(peerloom.__all__) - names == set()


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_modules_that_are_mentioned_exist(page: Path) -> None:
    files = [f"/{path.relative_to(ROOT)}" for root in SOURCES for path in (ROOT / root).rglob("*.py")]
    mentioned = set(MODULE.findall(page.read_text())) - USERS_FILES
    assert {module for module in mentioned if not any(file.endswith(f"/{module}") for file in files)} == set()


@pytest.mark.parametrize("page", MAPS, ids=str)
def test_folders_and_classes_of_the_maps_exist(page: Path) -> None:
    modules = [path for root in SOURCES for path in (ROOT / root).rglob("*.py")]
    folders = {f"/{path.parent.relative_to(ROOT)}" for path in modules}
    classes = set(re.findall(r"^class (\w+)", "\n".join(path.read_text() for path in modules), re.MULTILINE))
    text = page.read_text()
    gone = {name for name in FOLDER.findall(text) if not any(each.endswith(f"/{name}") for each in folders)}
    gone |= set(CLASS.findall(text)) - classes
    assert gone - ELSEWHERE == set()


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if "://" not in link:
            assert target.exists(), link
            assert not anchor or anchor in _anchors(target), link


def _anchors(page: Path) -> set[str]:
    """The names by which the headings of a page can be linked to."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
