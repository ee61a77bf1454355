"""Folders of documents: which files are rows, what is in a row, and what no document can break."""

import os
import sys
from pathlib import Path

import pytest

from peerloom.errors import SourceError
from peerloom.source.fingerprint import fingerprint
from peerloom.source.formats import documents
from peerloom.source.open import open_source
from peerloom.source.pages import NoText, decode_page, main_text

PAGE = """<!doctype html><html><head><title>  How tides
 work </title></head><body><nav><a href="/">Home</a><a href="/a">About us</a></nav>
<article><h1>Tides</h1><p>The moon pulls the sea, and the sea follows it around the earth every day.</p>
<p>Twice a month sun and moon pull together, which makes the highest tides of all.</p></article>
<div class="comments"><p>Great post, thanks for sharing this with us!</p></div>
<footer><p>Copyright 2026, all rights reserved, subscribe to our newsletter</p></footer></body></html>"""


def read(path: Path | str) -> list[tuple[str, str]]:
    """The path (or the error) and the text of each row."""
    rows = open_source(path).rows(0, 1)
    return [(row.data["path"], row.data["text"]) if row.data else (row.error, "") for row in rows]


def test_documents_are_found_in_all_folders_by_path(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.md", "a.txt", "a/b/c.TXT", ".hidden.txt", ".git/x.txt", "image.png", "c.rst"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    names = ["a/b/c.TXT", "a/z.md", "a.txt", "b.txt"]
    assert read(tmp_path) == [(name, name) for name in names]
    assert read(f"{tmp_path}/**/*.md") == [("a/z.md", "a/z.md")]
    assert read(tmp_path / "a" / "z.md") == [("z.md", "a/z.md")]


def test_a_page_is_its_main_text_and_its_title(tmp_path: Path) -> None:
    (tmp_path / "tides.html").write_text(PAGE)
    (row,) = open_source(tmp_path).rows(0, 1)
    assert set(row.data) == {"text", "path", "title"}
    assert row.data["title"] == "How tides work"
    assert "The moon pulls the sea" in row.data["text"]
    for rubbish in ("About us", "Great post", "Copyright", "<p>"):
        assert rubbish not in row.data["text"]


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.txt", b"", "the file is empty"),
        ("a.md", b" \n\t ", "the file is empty"),
        ("a.txt", b"caf\xe9 ol\xe9", "not UTF-8 at byte 3 (0xe9): convert the file"),
        ("a.txt", b"PK\0\0binary", "NUL character"),
        ("a.html", b"", "the file is empty"),
        ("a.html", b"<html><body><script>alert(1)</script></body></html>", "no main text"),
        ("a.html", b"<p>caf\xe9</p>", "not UTF-8 at byte 6, and no other character set is named"),
        ("a.html", b"<meta charset=klingon><p>caf\xe9</p>", "not klingon, the character set that it names"),
        ("a.html", b"<meta charset=rot13><p>caf\xe9</p>", "not rot13"),
        ("a.html", b"just words", "no main text"),
        ("a.html", b"<div>" * 20_000, "no main text"),
    ],
)
def test_a_bad_document_is_a_bad_row(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    (tmp_path / "z.txt").write_text("good")
    (error, _), good = read(tmp_path)
    assert error.startswith(f"{tmp_path / name}: ")
    assert said in error
    assert good == ("z.txt", "good")


def test_what_is_no_file_or_gone_is_a_bad_row(tmp_path: Path) -> None:
    (tmp_path / "a.txt").symlink_to("nowhere")
    os.mkfifo(tmp_path / "b.txt")
    for name in ("c.txt", "d.txt"):
        (tmp_path / name).write_text("text")
    source = open_source(tmp_path)
    (tmp_path / "c.txt").unlink()
    link, pipe, gone, good = source.rows(0, 1)
    assert "cannot be read" in link.error and "No such file" in link.error
    assert "not a regular file" in pipe.error
    assert "c.txt" in gone.error and "No such file" in gone.error
    assert good.data["text"] == "text"


def test_a_document_too_large_is_a_bad_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_BYTES", 1 << 20)
    (tmp_path / "a.txt").write_text("x" * (1 << 20))
    (tmp_path / "b.txt").write_text("x" * ((1 << 20) + 1))
    (_, text), (error, _) = read(tmp_path)
    assert len(text) == 1 << 20
    assert "larger than 1 MiB" in error


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("<p>café</p>", "utf-8"),
        ("<p>café</p>", "utf-8-sig"),
        ("<p>café</p>", "utf-16"),
        ('<meta http-equiv="Content-Type" content="text/html; charset=windows-1251"><p>Привет</p>', "cp1251"),
        ("<meta charset='gbk'><p>潮汐</p>", "gbk"),
    ],
)
def test_pages_are_decoded_as_they_say(text: str, encoding: str) -> None:
    assert decode_page(text.encode(encoding)) == text


def test_the_main_text_of_a_page_in_a_field() -> None:
    title, text = main_text(PAGE)
    assert title == "How tides work"
    assert text.count("\n") >= 1
    assert main_text("<h1>Tides</h1><p>The moon pulls the sea.</p>")[0] == "Tides"
    with pytest.raises(NoText, match="no main text"):
        main_text("")


def test_without_the_extra_pages_are_refused_and_texts_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trafilatura", None)
    monkeypatch.setattr(documents, "find_spec", lambda _: None)
    (tmp_path / "a.txt").write_text("text")
    assert read(tmp_path) == [("a.txt", "text")]
    (tmp_path / "b.html").write_text(PAGE)
    with pytest.raises(SourceError, match=r"pip install 'peerloom\[documents\]'"):
        open_source(tmp_path)
    with pytest.raises(SourceError, match=r"pip install 'peerloom\[documents\]'"):
        main_text(PAGE)


@pytest.mark.parametrize("change", ["content", "name", "more", "fewer"])
def test_changes_are_noticed(tmp_path: Path, change: str) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    before = fingerprint(open_source(tmp_path))
    os.utime(tmp_path / "a.txt", (1, 1))
    assert fingerprint(open_source(tmp_path)) == before
    if change == "content":
        (tmp_path / "b.txt").write_text("B.txt")
    elif change == "name":
        (tmp_path / "b.txt").rename(tmp_path / "c.txt")
    elif change == "more":
        (tmp_path / "c.txt").write_text("c")
    else:
        (tmp_path / "b.txt").unlink()
    assert fingerprint(open_source(tmp_path)) != before


def test_of_many_large_documents_some_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "WHOLE_BYTES", 100)
    for number in range(200):
        (tmp_path / f"{number:03d}.txt").write_text("x" * 10)
    before = fingerprint(open_source(tmp_path))
    (tmp_path / "000.txt").write_text("y" * 10)
    sampled = fingerprint(open_source(tmp_path))
    (tmp_path / "001.txt").write_text("y" * 10)
    assert before != sampled == fingerprint(open_source(tmp_path))
    (tmp_path / "001.txt").write_text("y" * 11)
    assert fingerprint(open_source(tmp_path)) != sampled
