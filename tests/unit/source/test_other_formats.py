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
        ("x.csv", b'question,answer\nwhat,"x, y"\n', "CSV: convert it"),
        ("array.json", json.dumps(ROWS).encode(), "a JSON array"),
        ("pretty.json", json.dumps(ROWS, indent=1).encode(), "a JSON array"),
        ("object.json", json.dumps(ROWS[0], indent=1).encode(), "JSON over several lines"),
        ("x.yaml", b"- question: a\n- question: b\n", "YAML: convert it"),
        ("x.jsonl.xz", lzma.compress(b'{"question": "a"}\n'), "xz: decompress it"),
        ("x.jsonl.bz2", bz2.compress(b'{"question": "a"}\n'), "bzip2: decompress it"),
        ("x.jsonl", gzip.compress(b'{"question": "a"}\n', mtime=0), "gzip: let its name end in .jsonl.gz"),
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
