"""Name the files of a run directory.

README.md                                             the card, for `datasets` and readers
run.yaml  summary.json  log.jsonl  logs/
data/part-<shard>-<incarnation>-<number>.jsonl        completed rows
rejected/part-<shard>-<incarnation>-<number>.jsonl    all other rows
data.parquet  rejected.parquet                        the same rows at the last export; also other formats

The rest is in `.peerloom/`:

run.lock                                              claimed by the process of the run
state.json                                            the state of the run between sessions
control.json                                          address and key of an active run; readable by its user
ledger                                                the used part of the budget
input.pos                                             the position of each row of the input
input.jsonl                                           the rows of an input without an end
program/<digest>.json                                 each version of the program that made rows
index/part-<shard>-<incarnation>-<number>.idx         the committed rows in the two files of a part
locks/shard-<shard>.lock                              the incarnation that may write a shard's parts
journal/<kind>-<index>-<incarnation>-<number>.jnl     turns and calls of tasks in flight, by member
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

INTERNAL = ".peerloom"
DATA, REJECTED, LOGS = "data", "rejected", "logs"
INDEX, LOCKS, JOURNAL = f"{INTERNAL}/index", f"{INTERNAL}/locks", f"{INTERNAL}/journal"
PROGRAM = f"{INTERNAL}/program"
FOLDERS = (INTERNAL, INDEX, LOCKS, JOURNAL, PROGRAM, DATA, REJECTED, LOGS)
README, RUN_YAML, LOG, SUMMARY = "README.md", "run.yaml", "log.jsonl", "summary.json"
RUN_LOCK = f"{INTERNAL}/run.lock"
STATE = f"{INTERNAL}/state.json"
CONTROL = f"{INTERNAL}/control.json"
POSITIONS = f"{INTERNAL}/input.pos"
INPUT = f"{INTERNAL}/input.jsonl"
LEDGER = f"{INTERNAL}/ledger"

_PART = r"part-(\d{3,})-(\d{4,})-(\d{4,})"
_FILE_NAMES = {
    DATA: re.compile(_PART + r"\.jsonl"),
    REJECTED: re.compile(_PART + r"\.jsonl"),
    INDEX: re.compile(_PART + r"\.idx"),
    LOCKS: re.compile(r"shard-\d{3,}\.lock"),
    JOURNAL: re.compile(r"(peer|feeder|alone)-(\d{3,})-(\d{4,})-(\d{4,})\.jnl"),
    PROGRAM: re.compile(r"[0-9a-f]+\.json"),
    LOGS: re.compile(r"[^.].*\.(log|jsonl)"),
    INTERNAL: re.compile(r"run\.lock|state\.json|control\.json|input\.(pos|jsonl)|ledger"),
}
_FILES = {RUN_YAML, LOG, SUMMARY}
_PARQUET = {f"{DATA}.parquet", f"{REJECTED}.parquet"}
_EXPORT = re.compile(r"(data|rejected)\.[\w.]+")
_TEMPORARY = re.compile(r"\.(.+?)(\.\d+)?\.tmp")


def temporary(path: Path) -> Path:
    """Return the name under which a file is written before it is renamed; readers ignore it."""
    return path.with_name(f".{path.name}.tmp")


def is_known(folder: str, name: str, *, is_run: bool = False) -> bool:
    """Return whether a name is that of one of Peerloom's files in a folder (empty: the run directory).

    In the directory of a run, exports may have any suffix.
    """
    hidden = _TEMPORARY.fullmatch(name)
    final = hidden[1] if hidden else name
    if folder:
        return _FILE_NAMES[folder].fullmatch(final) is not None
    return final in _FILES or final in _PARQUET or (is_run and _EXPORT.fullmatch(final) is not None)


class PartName(NamedTuple):
    """The name of a part: its shard, the incarnation that created it, and its number in that incarnation."""

    shard: int
    incarnation: int
    number: int

    def path(self, run_dir: Path, folder: str) -> Path:
        """Return the path of the part's file in `DATA`, `REJECTED` or `INDEX`."""
        suffix = ".idx" if folder == INDEX else ".jsonl"
        return run_dir / folder / f"part-{self.shard:03d}-{self.incarnation:04d}-{self.number:04d}{suffix}"

    def paths(self, run_dir: Path) -> tuple[Path, Path, Path]:
        """Return the paths of the part's files in `DATA`, `REJECTED` and `INDEX`."""
        return self.path(run_dir, DATA), self.path(run_dir, REJECTED), self.path(run_dir, INDEX)


class SegmentName(NamedTuple):
    """The name of a journal segment: its writer's kind, slot (index) and incarnation, and a number."""

    kind: str
    slot: int
    incarnation: int
    number: int

    def path(self, run_dir: Path) -> Path:
        """Return the path of the segment."""
        kind, slot, incarnation, number = self
        return run_dir / JOURNAL / f"{kind}-{slot:03d}-{incarnation:04d}-{number:04d}.jnl"


def list_parts(run_dir: Path, folder: str) -> list[PartName]:
    """Return the parts that have a file in a folder, in order; none if there is no such folder."""
    return sorted(PartName(*map(int, match.groups())) for match in _matches(run_dir, folder))


def list_segments(run_dir: Path) -> list[SegmentName]:
    """Return the segments of the journal, in order; none if there is no such folder."""
    names = (match.groups() for match in _matches(run_dir, JOURNAL))
    return sorted(SegmentName(kind, *map(int, numbers)) for kind, *numbers in names)


def lock_path(run_dir: Path, shard: int) -> Path:
    """Return the path of a shard's lock file."""
    return run_dir / LOCKS / f"shard-{shard:03d}.lock"


def _matches(run_dir: Path, folder: str) -> Iterator[re.Match[str]]:
    directory = run_dir / folder
    for name in os.listdir(directory) if directory.is_dir() else ():
        if match := _FILE_NAMES[folder].fullmatch(name):
            yield match
