"""Name the files of a run directory.

run.lock  run.yaml  state.json  log.jsonl  summary.json  logs/
control.json                                          address and key of an active run; readable by its user
ledger                                                the used part of the budget
input.pos                                             the position of each row of the input
data/part-<shard>-<incarnation>-<number>.jsonl        completed rows
rejected/part-<shard>-<incarnation>-<number>.jsonl    all other rows
data.parquet  rejected.parquet                        the same rows at the last export
index/part-<shard>-<incarnation>-<number>.idx         the committed rows in the two files of a part
locks/shard-<shard>.lock                              the incarnation that may write a shard's parts
journal/<kind>-<index>-<incarnation>-<number>.jnl     turns and calls of tasks in flight, by member
"""

import re
from pathlib import Path
from typing import NamedTuple

DATA, REJECTED, INDEX, LOCKS, LOGS, JOURNAL = "data", "rejected", "index", "locks", "logs", "journal"
FOLDERS = (DATA, REJECTED, INDEX, LOCKS, LOGS, JOURNAL)
RUN_LOCK, RUN_YAML, STATE, LOG, SUMMARY = "run.lock", "run.yaml", "state.json", "log.jsonl", "summary.json"
CONTROL = "control.json"
POSITIONS = "input.pos"
LEDGER = "ledger"
PARQUET = {DATA: "data.parquet", REJECTED: "rejected.parquet"}

_PART = re.compile(r"part-(\d{3,})-(\d{4,})-(\d{4,})(\.jsonl|\.idx)")
_SEGMENT = re.compile(r"([a-z]+)-(\d{3,})-(\d{4,})-(\d{4,})\.jnl")


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

    @classmethod
    def parse(cls, path: Path) -> "PartName | None":
        """Return the part that a file belongs to, or None if it does not belong to a part."""
        match = _PART.fullmatch(path.name)
        return cls(int(match[1]), int(match[2]), int(match[3])) if match else None


def list_parts(run_dir: Path, folder: str) -> list[PartName]:
    """Return the parts that have a file in a folder, in order; none if there is no such folder."""
    directory = run_dir / folder
    paths = directory.iterdir() if directory.is_dir() else ()
    return sorted(name for name in map(PartName.parse, paths) if name is not None)


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

    @classmethod
    def parse(cls, path: Path) -> "SegmentName | None":
        """Return the name of the segment in a file, or None if the file is not a segment."""
        match = _SEGMENT.fullmatch(path.name)
        return cls(match[1], int(match[2]), int(match[3]), int(match[4])) if match else None


def list_segments(run_dir: Path) -> list[SegmentName]:
    """Return the segments of the journal, in order; none if there is no such folder."""
    directory = run_dir / JOURNAL
    paths = directory.iterdir() if directory.is_dir() else ()
    return sorted(name for name in map(SegmentName.parse, paths) if name is not None)


def lock_path(run_dir: Path, shard: int) -> Path:
    """Return the path of a shard's lock file."""
    return run_dir / LOCKS / f"shard-{shard:03d}.lock"
