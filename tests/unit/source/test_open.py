"""What is made of a path: guesses, several at once, and refusals that say what to write instead."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kinds import jsonl, parquet

from peerloom.errors import ConfigError, SourceError
from peerloom.source.open import open_source
from peerloom.source.storage.urls import holds_credentials

ROWS = [{"n": 0}, {"n": 1}]


def kinds(*paths: str, **options: Any) -> list[str]:
    return [part.kind for part in open_source(paths, **options)._parts]


def values(*paths: str, **options: Any) -> list[Any]:
    return [row.data or row.error for row in open_source(paths, **options).rows(0, 1)]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_files_are_known_by_their_suffix(here: Path) -> None:
    (here / "rows").write_bytes(jsonl(ROWS))
    (here / "Q.JSONL.GZ").write_bytes(gzip.compress(jsonl(ROWS)))
    parquet(here / "p.parquet", ROWS)
    (here / "a.md").write_text("# A")
    (here / "b.txt").write_text("B")
    assert kinds("rows", "Q.JSONL.GZ", "p.parquet", "*.[mt]*") == ["jsonl", "jsonl", "parquet", "documents"]
    assert values("rows", "Q.JSONL.GZ", "p.parquet") == [*ROWS, *ROWS, *ROWS]
    assert values("*.md", "b.txt") == [{"text": "# A", "path": "a.md"}, {"text": "B", "path": "b.txt"}]
    assert open_source(["rows", "p.parquet"]).describe()["kind"] == "mixed"


def test_a_pattern_may_match_files_of_several_kinds(here: Path) -> None:
    (here / "a.jsonl").write_bytes(jsonl(ROWS))
    parquet(here / "b.parquet", ROWS)
    (here / "c.jsonl").write_bytes(jsonl(ROWS))
    assert kinds("*") == ["jsonl", "parquet", "jsonl"]


def test_what_is_said_is_not_guessed(here: Path) -> None:
    (here / "q.txt").write_bytes(jsonl(ROWS))
    parquet(here / "p.data", ROWS)
    (here / "page").write_text("<html><head><title>T</title></head><body><p>Some text.</p></body></html>")
    assert values("q.txt", format="jsonl") == ROWS
    assert values("p.data", format="parquet") == ROWS
    assert values("page", format="html") == [{"text": "Some text.", "path": "page", "title": "T"}]
    assert values("page", format="text")[0]["text"].startswith("<html>")
    with pytest.raises(SourceError, match=r"q\.txt is not a valid Parquet file"):
        open_source("q.txt", format="parquet")
    with pytest.raises(SourceError, match=r"q\.txt is not the directory of a run \(source.format=run\)"):
        open_source("q.txt", format="run")


def test_a_folder_is_read_by_the_format_that_is_said(here: Path) -> None:
    for name in ("a.txt", "b.html", "c.jsonl"):
        (here / name).write_text("<p>Some text.</p>")
    assert [value["path"] for value in values(".", format="text")] == ["a.txt"]
    assert [value["path"] for value in values(".", format="html")] == ["b.html"]


def test_a_file_named_twice_is_read_once(here: Path) -> None:
    for name in ("a", "b"):
        (here / f"{name}.jsonl").write_bytes(jsonl([{"name": name}]))
        (here / f"{name}.txt").write_text(name)
    assert values("b.jsonl", "*.jsonl", "./a.jsonl") == [{"name": "b"}, {"name": "a"}]
    assert [value["path"] for value in values("b.txt", "*.txt")] == ["b.txt", "a.txt"]


def test_a_file_by_its_file_url(here: Path) -> None:
    (here / "a.jsonl").write_bytes(jsonl(ROWS))
    assert values(f"file://{here}/a.jsonl") == ROWS


Make = Callable[[Path], None]


@pytest.mark.parametrize(
    ("make", "path", "said"),
    [
        (lambda _: None, "none.parquet", r"no file none\.parquet"),
        (lambda _: None, ".", r"\. is a directory without documents .*: name its files, as in \./\*\.jsonl"),
        (lambda at: parquet(at / "p.parquet", ROWS), ".", r"as in \./\*\.parquet"),
        (lambda at: (at / "p.parquet").write_bytes(b"PAR1"), "p.parquet", "is not a valid Parquet file"),
        (
            lambda at: [(at / "README.md").write_text("#"), parquet(at / "p.parquet", ROWS)],
            ".",
            r"has both documents \(\./README.md\) and data \(\./p.parquet\).*source\.format=text",
        ),
        (lambda _: None, "memory://bucket/none.jsonl", r"memory://bucket/none\.jsonl: there is no such file"),
        (lambda _: None, "memory://bucket/*.jsonl", "no file matches it"),
        (lambda _: None, "nowhere://x/y", "no storage is known by nowhere://"),
        (lambda _: None, "https://h/x.jsonl?token=abcdef", "holds credentials"),
        (lambda _: None, "s3://id:verysecret@bucket/x.jsonl", "holds credentials"),
    ],
)
@pytest.mark.usefixtures("bucket")
def test_refusals(here: Path, make: Make, path: str, said: str) -> None:
    make(here)
    with pytest.raises(SourceError, match=said) as refused:
        open_source(path)
    assert "abcdef" not in str(refused.value)
    assert "verysecret" not in str(refused.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    with pytest.raises(SourceError, match=r"s3://b/x.jsonl needs .* not installed: pip install s3fs"):
        open_source("s3://b/x.jsonl")


def test_a_remote_folder_is_refused(bucket: str) -> None:
    parquet(f"{bucket}/p.parquet", ROWS)
    with pytest.raises(SourceError, match=r"it is a folder: name its files"):
        open_source(bucket)


def test_no_path_and_an_unknown_format() -> None:
    with pytest.raises(SourceError, match="no source file was given"):
        open_source([])
    with pytest.raises(ConfigError, match=r"source.format=xlsx: there is no such format. There are: .*jsonl"):
        open_source("x", format="xlsx")


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("https://h/x?sig=abc", True),
        ("https://h/x?a=b&X-Amz-Credential=abc", True),
        ("az://user:pass@h", True),
        ("https://h/x?download=true", False),
        ("hf://datasets/a/b?split=train&name=key", False),
        ("what is the key?key=5", False),
        ("https://h:80/x", False),
    ],
)
def test_credentials_are_recognised(text: str, secret: bool) -> None:
    assert holds_credentials(text) == secret


@pytest.mark.parametrize(
    ("field", "row", "found"),
    [
        ("a", {"a": {"n": 1}}, {"n": 1}),
        ("a.b", {"a": {"b": {"n": 1}}}, {"n": 1}),
        ("a.b", {"a": {"b": "words"}}, {"text": "words"}),
        ("a", {"a": 3}, "q.jsonl:1: field 'a' (source.field) must be an object or a text to be a row"),
        ("question", {"qestion": {}}, "no field 'question' (source.field): did you mean qestion?"),
        ("a.x", {"a": {"b": 1, "c": 2}}, "no field 'a.x' (source.field): a has: b, c"),
        ("a.bbc", {"a": {"bbb": 1}}, "no field 'a.bbc' (source.field): did you mean a.bbb?"),
        ("a.b", {"a": None}, "no field 'a.b' (source.field): a: it is empty"),
        ("a.b", {"a": "x"}, "no field 'a.b' (source.field): a: it holds no fields"),
    ],
)
def test_a_field_is_the_row(here: Path, field: str, row: Any, found: Any) -> None:
    (here / "q.jsonl").write_bytes(jsonl([row]))
    (value,) = values("q.jsonl", field=field)
    if isinstance(found, str):
        assert found in value
    else:
        assert value == found


def test_the_key_labels_what_was_picked(here: Path) -> None:
    parquet(here / "p.parquet", [{"a": {"id": 7}, "id": 1}])
    (row,) = open_source("p.parquet", key="id", field="a").rows(0, 1)
    assert (row.data, row.label) == ({"id": 7}, 7)
