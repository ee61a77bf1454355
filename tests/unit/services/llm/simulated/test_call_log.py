"""The log of calls: written at once, and whole again after a kill."""

from pathlib import Path

import orjson
import pytest

from peerloom.services.llm.simulated.server.call_log import Call, CallLog


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "calls.jsonl"


@pytest.fixture
def torn(path: Path) -> bytes:
    """What a server that was killed while it wrote has left there."""
    left = b'{"key": "a"}\n{"key": "b", "sta'
    path.write_bytes(left)
    return left


def content(path: Path) -> bytes:
    return path.read_bytes()


def call(key: str, status: int = 200) -> Call:
    return Call(2.0, 1.0, key, "0-1-2/teacher", status, 4, 16)


def keys(path: Path) -> list[str]:
    return [orjson.loads(line)["key"] for line in content(path).splitlines()]


def test_a_line_is_in_the_file_at_once(path: Path) -> None:
    log = CallLog(path)
    for number, key in enumerate("abc", start=1):
        log.add(call(key))
        assert keys(path) == [*"abc"[:number]]
    log.close()


def test_a_new_server_goes_on_in_the_file(path: Path) -> None:
    for key in "ab":
        log = CallLog(path)
        log.add(call(key))
        log.close()
    assert keys(path) == ["a", "b"]


def test_a_torn_line_does_not_merge_with_the_next(path: Path, torn: bytes) -> None:
    CallLog(path).close()
    assert content(path) == torn, "a server without a call writes nothing"
    log = CallLog(path)
    for key in "cd":
        log.add(call(key))
    log.close()
    begin, more = content(path)[: len(torn) + 1], content(path)[len(torn) + 1 :]
    assert begin == torn + b"\n"
    assert [orjson.loads(line)["key"] for line in more.splitlines()] == ["c", "d"]
