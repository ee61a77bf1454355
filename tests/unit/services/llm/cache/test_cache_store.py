import os
import random
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from peerloom.services.llm.cache.store import Store, is_busy

MEGABYTE = 1_000_000
random_bytes = random.Random(1).randbytes


def entries(*numbers: int, size: int = 10) -> dict[bytes, bytes]:
    return {key(number): random_bytes(size) for number in numbers}


def key(number: int) -> bytes:
    return number.to_bytes(20, "big")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "below" / "cache.db"


def test_what_was_written_is_there_for_whoever_opens_the_file(path: Path) -> None:
    one, two = Store(path, MEGABYTE), Store(path, MEGABYTE)
    written = entries(1, 2)
    one.write(written)
    assert two.get([key(1), key(2), key(3)]) == written
    two.write({key(1): b"newer"})
    assert one.get([key(1)]) == {key(1): b"newer"}
    one.close()
    two.close()
    again = Store(path, MEGABYTE)
    assert again.get([key(2)]) == {key(2): written[key(2)]}
    again.close()


def test_only_the_owner_may_look_into_it(path: Path) -> None:
    store = Store(path, MEGABYTE)
    store.write(entries(1))
    modes = {stat.S_IMODE(os.stat(file).st_mode) for file in path.parent.iterdir()}
    assert modes == {0o600}
    store.close()


def test_more_keys_than_one_query_takes(path: Path) -> None:
    store = Store(path, MEGABYTE)
    store.write(entries(*range(2_000)))
    assert len(store.get([key(number) for number in range(2_000)])) == 2_000
    store.close()


def test_the_file_stays_within_its_size_and_what_was_not_used_goes_first(path: Path) -> None:
    store = Store(path, MEGABYTE)
    kept = [key(0), key(1)]
    for start in range(0, 4_000, 50):
        store.write(entries(*range(start, start + 50), size=1_500), used=kept)
        assert path.stat().st_size <= 1.1 * MEGABYTE
    there = [number for number in range(4_000) if store.get([key(number)])]
    assert there[:2] == [0, 1]  # used again and again
    assert there[2:] == list(range(there[2], 4_000))  # of the others the newest
    assert len(there) * 1_500 > 0.6 * MEGABYTE
    store.close()


def test_a_smaller_size_takes_effect_on_an_old_file(path: Path) -> None:
    store = Store(path, 4 * MEGABYTE)
    store.write(entries(*range(2_000), size=1_500))
    store.close()
    assert path.stat().st_size > 2.5 * MEGABYTE
    store = Store(path, MEGABYTE)
    store.write(entries(5_000))
    store.close()  # the log goes into the file
    assert path.stat().st_size <= 1.1 * MEGABYTE


def test_a_value_that_would_push_out_most_others_is_not_kept(path: Path) -> None:
    store = Store(path, MEGABYTE)
    store.write({key(1): b"x" * (MEGABYTE // 2), key(2): b"y"})
    assert list(store.get([key(1), key(2)])) == [key(2)]
    store.close()


@pytest.mark.parametrize(
    "content", [b"no database, but long enough to be read as one " * 100, b"SQLite format 3\0x"]
)
def test_what_is_no_cache_is_refused(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(sqlite3.DatabaseError):
        Store(path, MEGABYTE)
    assert path.read_bytes() == content


def test_another_releases_file_is_left_alone(path: Path) -> None:
    Store(path, MEGABYTE).close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version=99")
    database.close()
    with pytest.raises(sqlite3.DatabaseError, match="format is 99"):
        Store(path, MEGABYTE)


def test_a_lock_of_somebody_else_is_told_from_damage(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peerloom.services.llm.cache.store.BUSY_SECONDS", 0.0)
    store = Store(path, MEGABYTE)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError) as raised:
        store.write(entries(1))
    assert is_busy(raised.value)
    assert store.get([key(1)]) == {}  # readers do not mind
    other.execute("ROLLBACK")
    store.write(entries(1))
    assert list(store.get([key(1)])) == [key(1)]
    other.close()
    store.close()
    assert not is_busy(sqlite3.DatabaseError("damaged"))


WRITER = """
import sys
from pathlib import Path
from peerloom.services.llm.cache.store import Store
store = Store(Path(sys.argv[1]), 10**7)
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    store.write({number.to_bytes(20, "big"): b"value"})
store.close()
"""


def test_processes_share_it(path: Path) -> None:
    running = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(start), str(start + 100)])
        for start in (0, 100)
    ]
    assert [process.wait(60) for process in running] == [0, 0]
    store = Store(path, 10 * MEGABYTE)
    assert len(store.get([key(number) for number in range(200)])) == 200
    store.close()
