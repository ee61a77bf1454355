"""Extract the main text of a web page, without menus, banners and comments."""

import codecs
import logging
import re
from typing import Any

from peerloom.source.storage.extras import import_extra
from peerloom.source.storage.urls import one_line

_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]{1,40})""", re.IGNORECASE)
_HEAD = 4096
logging.getLogger("trafilatura").addHandler(logging.NullHandler())  # problems are reported in the row
_TITLE_CHARS = 1000
_BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class NoText(ValueError):
    """A page has no main text; the message is the reason, for the bad row."""


def main_text(html: str) -> tuple[str, str]:
    """Return the title (empty if there is none) and the main text of a page; needs the extra `documents`.

    Pages are untrusted input, so all exceptions of the parser are converted.
    """
    trafilatura = import_extra("trafilatura", "documents", "the main text of web pages")
    loader = import_extra("trafilatura.utils", "documents", "the main text of web pages")
    try:
        if "<html" not in html[:_HEAD].lower() and "<" in html:
            html = f"<html><body>{html}</body></html>"  # a fragment, as fields often contain
        tree = loader.load_html(html)
        title = _title(tree) if tree is not None else ""
        found = trafilatura.extract(tree, include_comments=False) if tree is not None else None
    except Exception as error:
        raise NoText(f"the page cannot be read as HTML: {one_line(error)}") from error
    if not found or not found.strip():
        raise NoText("the page has no main text")
    return title, found.strip()


def decode_page(data: bytes) -> str:
    """Decode a page by its byte order mark, as UTF-8, or by the character set that it names."""
    for mark, encoding in _BOMS.items():
        if data.startswith(mark):
            return _decoded(data, encoding)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        named = _CHARSET.search(data[:_HEAD])
        if named is not None:
            return _decoded(data, named[1].decode("ascii", "replace"))
        raise NoText(f"not UTF-8 at byte {error.start}, and no other character set is named") from error


def _decoded(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except (LookupError, ValueError) as error:
        raise NoText(f"not {encoding}, the character set that it names") from error


def _title(tree: Any) -> str:
    """Return the title of a page, on one line."""
    for path in ("//head//meta[@property='og:title']/@content", "(//title)[1]//text()", "(//h1)[1]//text()"):
        text = " ".join(" ".join(tree.xpath(path)).split())
        if text:
            return text[:_TITLE_CHARS]
    return ""
