"""Build the site: all pages in both formats, and nothing loaded from other hosts."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import peerloom

pytest.importorskip("mkdocs", reason="needs the site's tools: make docs")

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\(([^)#\s]+)")
LOADED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?// | <link\b[^>]*https?://
    | (?:url\(|@import\s+)["']?(?:https?:)?//""",
    re.VERBOSE,
)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_site_is_complete_and_loads_nothing_from_other_hosts(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, check=True)
    expect_every_page_in_both_formats(tmp_path)
    expect_every_public_name_in_both_formats(tmp_path / "api")
    for page in [tmp_path / "llms.txt", *tmp_path.rglob("*.md")]:
        expect_that_links_lead_somewhere(page)
    for page in [*tmp_path.rglob("*.html"), *tmp_path.rglob("*.css")]:
        assert not LOADED.search(page.read_text()), page


def expect_every_page_in_both_formats(site: Path) -> None:
    pages = {page.with_suffix("") for page in site.rglob("*.html")} - {site / "404"}
    assert {page.with_suffix("") for page in site.rglob("*.md")} == pages
    assert {site / "index", site / "agents"} < pages


def expect_every_public_name_in_both_formats(reference: Path) -> None:
    html = "".join(page.read_text() for page in reference.glob("*.html"))
    markdown = "".join(page.read_text() for page in reference.glob("*.md"))
    assert ":::" not in markdown
    for name in peerloom.__all__:
        assert f'id="peerloom.{name}"' in html, name
        assert f"## `peerloom.{name}`\n" in markdown, name


def expect_that_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        assert "://" in link or (page.parent / link).exists(), f"{page.name}: {link}"
