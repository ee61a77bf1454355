import gzip
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from peerloom.errors import SourceError
from peerloom.source.base import SourceRow
from peerloom.source.combined import PartsSource
from peerloom.source.open import open_source
from peerloom.source.parts.json_lines import JsonlPart
from peerloom.source.storage.files import local_file

REAL_ROWS = Path(__file__).parents[4] / "shared" / "data" / "mmlu_pro_1000.jsonl"

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "jsonl": bytes,
    "jsonl.gz": gzip.compress,
    "jsonl.zst": zstandard.compress,
}


def lines(*values: Any) -> bytes:
    return b"".join(json.dumps(value, ensure_ascii=False).encode() + b"\n" for value in values)


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def read(source: PartsSource) -> list[SourceRow]:
    return list(source.rows(0, 1))


def one_error(tmp_path: Path, data: bytes) -> str:
    """What is said about the middle one of three rows, whose neighbours must be fine."""
    path = write(tmp_path / "q.jsonl", lines({"n": 0}) + data + b"\n" + lines({"n": 2}))
    first, bad, last = read(open_source(path))
    assert (first.data, first.error, last.data, last.error) == ({"n": 0}, "", {"n": 2}, "")
    assert (bad.row, bad.data, bad.label) == (1, None, None)
    assert bad.error.startswith(f"{path}:2")
    return bad.error


@pytest.mark.parametrize("kind", PACKERS)
def test_reads_plain_and_compressed(tmp_path: Path, kind: str):
    rows = [{"n": n, "text": "é" * n} for n in range(300)]
    source = open_source(write(tmp_path / f"q.{kind}", PACKERS[kind](lines(*rows))))
    found = read(source)
    assert [row.data for row in found] == rows
    assert [(row.file, row.row, row.error) for row in found] == [(0, n, "") for n in range(300)]
    assert source.total() == 300


@pytest.mark.parametrize("kind", PACKERS)
def test_fetches_by_position(tmp_path: Path, kind: str):
    data = lines(*({"n": n} for n in range(50))) + b"\n" + lines({"n": 51})
    paths = [write(tmp_path / f"{name}.{kind}", PACKERS[kind](data)) for name in "ab"]
    source = open_source(paths, key="n")
    rows = read(source)
    assert all((row.offset >= 0) == (kind == "jsonl") for row in rows)
    wanted = [rows[index] for index in (70, 3, 101, 0, 50, 3)]
    assert source.fetch([row[:3] for row in wanted]) == wanted
    assert source.fetch([(1, 51, -1)])[0].data == {"n": 51}
    assert source.fetch([]) == []


def test_fetch_of_a_row_that_is_gone_is_a_bad_row(tmp_path: Path):
    source = open_source(write(tmp_path / "q.jsonl.gz", gzip.compress(lines({"n": 0}))))
    assert "q.jsonl.gz:8: no such row any more" in source.fetch([(0, 7, -1)])[0].error
    with pytest.raises(SourceError, match="no source file number 1"):
        source.fetch([(1, 0, -1)])


def test_fetch_past_the_end_of_a_plain_file_is_a_bad_row(tmp_path: Path):
    source = open_source(write(tmp_path / "q.jsonl", lines({"n": 0})))
    assert "q.jsonl:8" in source.fetch([(0, 7, 700)])[0].error


def test_partitions_cover_every_row_once_and_do_not_change_its_identity(tmp_path: Path):
    paths = [write(tmp_path / f"{n}.jsonl", lines(*({"n": i} for i in range(n)))) for n in (7, 1, 12)]
    source = open_source(paths)
    whole = read(source)
    for partitions in (2, 3, 5):
        parts = [list(source.rows(part, partitions)) for part in range(partitions)]
        assert sorted(row[:3] for part in parts for row in part) == [row[:3] for row in whole]
        assert all((row.file + row.row) % partitions == p for p, part in enumerate(parts) for row in part)


@pytest.mark.parametrize("limit", [0, 1, 7, 8, 19, 20, 100])
@pytest.mark.parametrize("partitions", [1, 3])
def test_limit_counts_by_position_over_files_and_partitions(tmp_path: Path, limit: int, partitions: int):
    paths = [
        write(tmp_path / "a.jsonl", b"\n" + lines(*({"n": n} for n in range(7)))),
        write(tmp_path / "b.jsonl.gz", gzip.compress(lines(*({"n": n} for n in range(13))))),
    ]
    source = open_source(paths, limit=limit)
    found = [row for part in range(partitions) for row in source.rows(part, partitions)]
    assert sorted(row[:3] for row in found) == [row[:3] for row in read(open_source(paths))][:limit]
    assert source.total() == min(limit, 20)


def test_blank_lines_are_skipped_but_counted(tmp_path: Path):
    data = b"\n" + lines({"n": 0}) + b"  \r\n\n" + lines({"n": 1}).rstrip()
    rows = read(open_source(write(tmp_path / "q.jsonl", data)))
    assert [(row.row, row.data["n"]) for row in rows] == [(1, 0), (4, 1)]


@pytest.mark.parametrize("data", [b"", b"\n\n \n"])
@pytest.mark.parametrize("kind", PACKERS)
def test_an_empty_file_has_no_rows(tmp_path: Path, data: bytes, kind: str):
    source = open_source(write(tmp_path / f"q.{kind}", PACKERS[kind](data) if data else b""))
    assert source.total() == 0
    assert read(source) == []


def test_crlf_and_a_byte_order_mark_are_read(tmp_path: Path):
    data = b"\xef\xbb\xbf" + lines({"n": 0}, {"n": 1}).replace(b"\n", b"\r\n")
    source = open_source(write(tmp_path / "q.jsonl", data))
    rows = read(source)
    assert [row.data for row in rows] == [{"n": 0}, {"n": 1}]
    assert source.fetch([row[:3] for row in rows]) == rows


@pytest.mark.parametrize("kind", PACKERS)
def test_a_row_of_5_megabytes(tmp_path: Path, kind: str):
    text = "naïve " * 800_000
    data = lines({"n": 0}, {"text": text}, {"n": 2})
    source = open_source(write(tmp_path / f"q.{kind}", PACKERS[kind](data)))
    rows = read(source)
    assert rows[1].data["text"] == text
    assert rows[2].data == {"n": 2}
    assert source.fetch([rows[1][:3]]) == [rows[1]]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"n" 1}', ":2:6: not JSON: unexpected character, expected ':'"),
        (b'{"n": 1', "not JSON: unexpected end"),
        (b'{"n": 1} {"n": 2}', "unexpected content after document"),
        (b'{"n": NaN}', ":2:7: not JSON: NaN is not a JSON number; write null"),
        (b'{"n": -Infinity}', "Infinity is not a JSON number; write null"),
        (b'{"n": 1e999}', "number is infinity"),
        (b'{"n": "\\ud800"}', "no low surrogate"),
        (b"[" * 3000, "depth limit"),
        (b"{", "write each on a line of its own"),
        (b'{"n": "\0"}', "NUL character"),
        (b"[1, 2]", "must be a JSON object, but this is an array"),
        (b'"text"', "but this is a string"),
        (b"17", "but this is a number"),
        (b"true", "but this is a boolean"),
        (b"null", "but this is null"),
        ('{"n": "caf\u00e9"}'.encode("latin-1"), "not UTF-8 at byte 10 (0xe9)"),
    ],
)
def test_a_bad_line_costs_one_row_and_says_where(tmp_path: Path, data: bytes, said: str):
    assert said in one_error(tmp_path, data)


def test_utf_16_is_recognised(tmp_path: Path):
    path = write(tmp_path / "q.jsonl", '{"n": 0}\n{"n": 1}\n'.encode("utf-16"))
    rows = read(PartsSource([JsonlPart(local_file(path))]))
    assert "looks like UTF-16" in rows[0].error
    assert all(row.error for row in rows)


@pytest.mark.parametrize("kind", ["jsonl.gz", "jsonl.zst"])
def test_a_truncated_file_gives_what_it_has_and_then_one_error(tmp_path: Path, kind: str):
    rows = [{"n": n, "noise": os.urandom(400).hex()} for n in range(2000)]
    packed = PACKERS[kind](lines(*rows))
    source = open_source(write(tmp_path / f"q.{kind}", packed[: len(packed) // 2]))
    *good, bad = read(source)
    assert len(good) > 500
    assert [row.data for row in good] == rows[: len(good)]
    assert bad.row == len(good)
    assert f"q.{kind}:{len(good) + 1}: the compressed file is cut off" in bad.error
    assert source.total() == len(good) + 1
    assert source.fetch([bad[:3], good[1][:3]]) == [bad, good[1]]


@pytest.mark.parametrize("kind", ["jsonl.gz", "jsonl.zst"])
def test_a_file_that_is_not_compressed_as_its_name_says(tmp_path: Path, kind: str):
    (row,) = read(open_source(write(tmp_path / f"q.{kind}", lines({"n": 0}))))
    assert f"q.{kind}:1: the compressed data is damaged" in row.error


@pytest.mark.parametrize("kind", ["jsonl.gz", "jsonl.zst"])
def test_several_compressed_streams_in_one_file(tmp_path: Path, kind: str):
    pack = PACKERS[kind]
    data = pack(lines({"n": 0})) + bytes(100) + pack(b'{"n"') + pack(b": 1}\n") + bytes(30)
    assert [row.data for row in read(open_source(write(tmp_path / f"q.{kind}", data)))] == [
        {"n": 0},
        {"n": 1},
    ]


def test_the_key_labels_rows(tmp_path: Path):
    data = lines({"id": "a"}, {"id": 7}, {"iid": "c"}, {"x": 1}, {"id": None}, {"id": True}, {"id": 1.5}, {})
    rows = read(open_source(write(tmp_path / "q.jsonl", data), key="id"))
    assert [row.label for row in rows] == ["a", 7, *[None] * 6]
    assert "q.jsonl:3: no field 'id' to label the row; did you mean 'iid'?" in rows[2].error
    assert "it has: x" in rows[3].error
    assert all("string or an integer" in row.error for row in rows[4:7])
    assert "it has: none" in rows[7].error


def test_globs_are_sorted_and_a_file_is_read_once(tmp_path: Path):
    for name in ("b", "a", "c"):
        write(tmp_path / f"{name}.jsonl", lines({"name": name}))
    (tmp_path / "d.jsonl").mkdir()
    source = open_source([str(tmp_path / "c.jsonl"), str(tmp_path / "*.jsonl")])
    assert [row.data["name"] for row in read(source)] == ["c", "a", "b"]
    files = source.describe()["files"]
    assert [Path(file["path"]).name for file in files] == ["c.jsonl", "a.jsonl", "b.jsonl"]
    assert all(Path(file["path"]).is_absolute() and file["bytes"] == 14 for file in files)


def test_a_name_with_glob_characters_is_taken_literally_if_it_exists(tmp_path: Path):
    path = tmp_path / "q[1].jsonl"
    write(path, lines({"n": 0}))
    assert open_source(path).total() == 1


def test_a_link_is_read_by_its_own_suffix(tmp_path: Path):
    write(tmp_path / "blob", gzip.compress(lines({"n": 0})))
    (tmp_path / "q.jsonl.gz").symlink_to("blob")
    assert read(open_source(tmp_path / "q.jsonl.gz"))[0].data == {"n": 0}


def test_a_missing_file_is_refused_with_the_nearest_name(tmp_path: Path):
    write(tmp_path / "questions.jsonl", b"")
    with pytest.raises(SourceError, match=r"no file .*question\.jsonl\. Did you mean .*questions\.jsonl\?"):
        open_source(str(tmp_path / "question.jsonl"))
    with pytest.raises(SourceError, match=r"has: questions\.jsonl\."):
        open_source(str(tmp_path / "zzz" / "xyz"))


def test_an_empty_glob_is_refused(tmp_path: Path):
    with pytest.raises(SourceError, match=r"no file matches .*\*\.jsonl.* has: nothing"):
        open_source(str(tmp_path / "*.jsonl"))


def test_a_directory_is_refused_with_what_to_write(tmp_path: Path):
    with pytest.raises(SourceError, match=r"is a directory: name its files, as in .*/\*\.jsonl"):
        open_source(str(tmp_path), format="jsonl")


def test_what_is_no_regular_file_is_refused(tmp_path: Path):
    with pytest.raises(SourceError, match="not a regular file"):
        open_source("/dev/null")
    (tmp_path / "q.jsonl").symlink_to("nowhere")
    with pytest.raises(SourceError, match="cannot be read: No such file"):
        open_source(str(tmp_path / "q.jsonl"))


def test_an_unreadable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "q.jsonl", lines({"n": 0}))
    os.chmod(path, 0)
    if os.access(path, os.R_OK):  # root reads anything
        monkeypatch.setattr("builtins.open", denied)
    with pytest.raises(SourceError, match=r"q\.jsonl cannot be read: Permission denied"):
        open_source(path)


def denied(*_: object, **__: object) -> None:
    raise PermissionError(13, "Permission denied")


def test_no_file_and_a_negative_limit_are_refused(tmp_path: Path):
    with pytest.raises(SourceError, match="no source file was given"):
        open_source([])
    with pytest.raises(SourceError, match="limit=-1"):
        open_source(write(tmp_path / "q.jsonl", b""), limit=-1)


def test_a_file_that_vanishes_is_a_source_error(tmp_path: Path):
    source = open_source(write(tmp_path / "q.jsonl", lines({"n": 0})))
    (row,) = read(source)
    (tmp_path / "q.jsonl").unlink()
    with pytest.raises(SourceError, match=r"q\.jsonl cannot be read any more"):
        source.total()
    with pytest.raises(SourceError, match=r"q\.jsonl cannot be read any more"):
        source.fetch([row[:3]])


def test_travels_by_pickle_and_keeps_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "q.jsonl", lines({"n": 0}))
    monkeypatch.chdir(tmp_path)
    source = open_source("q.jsonl")
    monkeypatch.chdir("/")
    assert read(pickle.loads(pickle.dumps(source))) == read(source) != []


@pytest.mark.skipif(not REAL_ROWS.exists(), reason="the shared data is not here")
def test_reads_mmlu_pro():
    source = open_source(REAL_ROWS, key="question_id", limit=900)
    rows = [row for part in range(3) for row in source.rows(part, 3)]
    assert source.total() == len(rows) == len({row.label for row in rows}) == 900
    assert not any(row.error for row in rows)
    assert all(row.data["question"] and len(row.data["options"]) > 1 for row in rows)
    assert source.fetch([row[:3] for row in rows[::-1]]) == rows[::-1]
