"""What the tests of the journal share: small turns and calls, and everything a journal knows."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from peerloom.sink.journal.index import JournalIndex, RecoveredTask
from peerloom.sink.journal.records import call_record, turn_record
from peerloom.sink.journal.writer import JournalWriter
from peerloom.task import Header, SavedCall, TaskId, Turn

_encoder = msgspec.msgpack.Encoder()


def task(row: int) -> TaskId:
    return TaskId(0, row, 0)


def header(row: int, hop: int, attempt: int = 1) -> Header:
    return Header(task(row), attempt, hop)


def raw(text: str) -> msgspec.Raw:
    return msgspec.Raw(_encoder.encode(Turn("teacher", {"role": "assistant", "content": text})))


def turn(row: int, hop: int, text: str = "", attempt: int = 1) -> bytes:
    return turn_record(header(row, hop, attempt), [raw(text or f"{row} at {hop}")])


def call(row: int, hop: int, text: str = "yes", attempt: int = 1) -> bytes:
    return call_record(header(row, hop, attempt), SavedCall(text.encode(), b"reply to " + text.encode()))


def texts(recalled: RecoveredTask | None) -> list[str]:
    """What was said in the turns recalled; none if nothing was recalled."""
    raw_turns = recalled.raw_turns if recalled is not None else []
    return [msgspec.msgpack.decode(bytes(it), type=Turn).text for it in raw_turns]


def digests(recalled: RecoveredTask | None) -> list[str]:
    return [it.digest.decode() for it in recalled.calls] if recalled is not None else []


def put(writer: JournalWriter, row: int, *records: bytes) -> None:
    writer.write(records, [task(row)] * len(records))


def put_turns(writer: JournalWriter, rows: Iterable[int], hop: int = 1) -> None:
    numbers = list(rows)
    writer.write([turn(row, hop) for row in numbers], [task(row) for row in numbers])


def segments(run_dir: Path) -> list[str]:
    return sorted(path.name for path in (run_dir / ".peerloom/journal").iterdir())


@contextmanager
def scanned(run_dir: Path, wants: Callable[[TaskId], bool] = lambda _: True) -> Iterator[JournalIndex]:
    memory = JournalIndex.scan(run_dir, wants)
    try:
        yield memory
    finally:
        memory.close()


def known(run_dir: Path) -> dict[int, list[str]]:
    """What was said of each row that the journal knows; no byte of it may be damaged."""
    with scanned(run_dir) as memory:
        found = {id.row: texts(memory.pop(id)) for id in sorted(memory.ids())}
        assert memory.damaged == 0
        return found


def open_files(run_dir: Path) -> int:
    """How many files of the journal this process has open."""
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sum(str(link.readlink()).startswith(str(run_dir / ".peerloom/journal")) for link in links)
