"""Adapt the repository's pages to the site, and write each page as Markdown beside its HTML (MkDocs hooks).

The site also has pages from outside `docs/`. API pages hold lines such as `::: peerloom.run`, replaced by the
docstrings: in the HTML by mkdocstrings, in the Markdown by griffe2md.
"""

import re
from functools import cache
from pathlib import Path
from posixpath import dirname, normpath, relpath
from typing import cast

import griffe
from griffe2md import ConfigDict, render_object_docs
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
    "benchmarks/RESULTS.md": "results.md",
}
"""The pages from outside `docs/`, by their paths in the repository, with those in the site."""
LINK = re.compile(r"(\]\()([^)#\s]+)")
CODE = re.compile(r"<code>(.*?)</code>")
DANGLING = re.compile(r"\[([^]]+)\]\(#[^)]*\)")
DIRECTIVE = re.compile(r"^::: ([\w.]+)\n(?:    .*\n)*", re.MULTILINE)
STYLE = ConfigDict(
    heading_level=2,
    filters=["!^_"],
    members_order="source",
    group_by_category=False,
    docstring_section_style="list",
    show_signature_annotations=True,
    show_root_full_path=True,
    signature_crossrefs=False,
    summary=False,
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside `docs/`, and the images beside them."""
    for path, site_path in OUTSIDE.items():
        files.append(File.generated(config, site_path, content=(ROOT / path).read_text("utf-8")))
    for image in (ROOT / "benchmarks").glob("*.svg"):
        files.append(File.generated(config, image.name, abs_src_path=str(image)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Write the page's Markdown, and return it with links as they are in the site."""
    markdown = with_site_links(markdown, page.file.src_uri)
    target = Path(config.site_dir, page.file.src_uri)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(DIRECTIVE.sub(lambda match: api_markdown(match[1]), markdown), "utf-8")
    return markdown


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Append a link to the page's Markdown."""
    return f'{html}\n<p><a href="{Path(page.file.src_uri).name}">This page as Markdown</a></p>'


def on_post_build(config: MkDocsConfig) -> None:
    """Copy `llms.txt`, with links as they are in the site."""
    text = (ROOT / "llms.txt").read_text("utf-8")
    Path(config.site_dir, "llms.txt").write_text(with_site_links(text, "llms.txt"), "utf-8")


def with_site_links(markdown: str, site_path: str) -> str:
    """Return the page with its relative links changed from paths in the repository to those in the site."""
    sources = {site: path for path, site in OUTSIDE.items()} | {"llms.txt": "llms.txt"}
    folder = dirname(sources.get(site_path, f"docs/{site_path}"))

    def site_link(match: re.Match[str]) -> str:
        if "://" in match[2]:
            return match[0]
        path = normpath(f"{folder}/{match[2]}".lstrip("/"))
        target = OUTSIDE.get(path, path.removeprefix("docs/").removeprefix("benchmarks/"))
        return match[1] + relpath(target, dirname(site_path) or ".")

    return LINK.sub(site_link, markdown)


def api_markdown(name: str) -> str:
    """Return the documentation of an object as Markdown."""
    found = package()[name.removeprefix("peerloom.")]
    target = found.final_target if isinstance(found, griffe.Alias) else found
    text = render_object_docs(target, STYLE)
    text = CODE.sub(lambda match: "`" + DANGLING.sub(r"\1", match[1]) + "`", text)
    text = text.replace(f"## `{target.path}`", f"## `{name}`", 1).replace(
        f"`{target.path}.", f"`{target.name}."
    )
    return text.strip() + "\n\n"


@cache
def package() -> griffe.Object:
    """Return the package as parsed, not imported."""
    loader = griffe.GriffeLoader(search_paths=[ROOT / "src"], docstring_parser="google")
    loaded = loader.load("peerloom")
    loader.resolve_aliases()
    return cast("griffe.Object", loaded)
