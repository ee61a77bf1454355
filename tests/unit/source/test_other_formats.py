"""A file in another format than JSON Lines is named before the run starts."""

import bz2
import gzip
import json
import lzma
from pathlib import Path

import pytest

from peerloom.errors import SourceError
from peerloom.source.open import open_source

ROWS = [{"question": "a"}] * 3


@pytest.mark.parametrize(
    ("name", "data", "advice"),
    [
        ("object.json", json.dumps(ROWS[0], indent=1).encode(), "JSON over several lines"),
        ("array", json.dumps(ROWS).encode(), "a JSON array: let its name end in .json"),
        ("x.jsonl", gzip.compress(b'{"question": "a"}\n', mtime=0), "gzip: let its name end in .jsonl.gz"),
        ("y.jsonl", bz2.compress(b'{"question": "a"}\n'), "bzip2: let its name end in .jsonl.bz2"),
        ("z.jsonl", lzma.compress(b'{"question": "a"}\n'), "xz: let its name end in .jsonl.xz"),
        ("a.data", b"SQLite format 3\0" + bytes(100), "SQLite"),
        ("utf16.jsonl", '{"question": "a"}\n'.encode("utf-16"), "UTF-16: convert it"),
        ("words.jsonl", b"one\ntwo\nthree\n", "Each line must be one JSON object"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_format_is_named(name: str, data: bytes, advice: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(data)
    with pytest.raises(SourceError, match="is not JSON Lines") as refused:
        open_source(file)
    assert advice in str(refused.value) and str(file) in str(refused.value)


@pytest.mark.parametrize(
    ("name", "kind", "advice"),
    [
        ("x.sqlite", "a database", "sqlite3 -csv"),
        ("x.xlsx", "a spreadsheet", "as CSV"),
        ("x.yaml", "YAML", "yq -o=json"),
        ("x.pkl", "a Python object", "peerloom.run(source=...)"),
        ("x.tar.gz", "an archive", "unpack it"),
    ],
)
def test_a_format_that_is_not_read_is_refused_by_its_name(
    name: str, kind: str, advice: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_bytes(b'{"question": "a"}\n')
    with pytest.raises(SourceError) as refused:
        open_source(file)
    assert f"{name} is {kind}" in str(refused.value) and advice in str(refused.value)
    assert open_source(file, format="jsonl").total() == 1


def test_a_file_that_git_lfs_did_not_download_is_named(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 10\n")
    with pytest.raises(SourceError, match="git lfs pull"):
        open_source(file)


def test_a_file_with_bad_lines_first_is_read(tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text("# a comment\n[1]\n" + '{"question": "a"}\n')
    rows = list(open_source(file).rows(0, 1))
    assert [bool(row.error) for row in rows] == [True, True, False]


def test_objects_that_no_row_can_hold_are_bad_rows_and_no_other_format(tmp_path: Path) -> None:
    deep = '{"a":' * 2_000 + "1" + "}" * 2_000
    (tmp_path / "q.jsonl").write_text(f'{{"id": {2**70}}}\n{{"x": NaN}}\n{deep}\n')
    source = open_source(tmp_path / "q.jsonl")
    assert [bool(row.error) for row in source.rows(0, 1)] == [True, True, True]
