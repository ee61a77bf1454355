"""Names in a run directory.

run.lock  run.yaml  state.json  log.jsonl  summary.json  logs/
control.json                                          how to reach a run that goes on; for its user's eyes
ledger                                                what of the budget is used
input.pos                                             where each row of the input begins
data/part-<shard>-<incarnation>-<number>.jsonl        completed rows
rejected/part-<shard>-<incarnation>-<number>.jsonl    all other rows
data.parquet  rejected.parquet                        the same, as of the last export
index/part-<shard>-<incarnation>-<number>.idx         which rows of the two count
locks/shard-<shard>.lock                              who may write a shard's parts
journal/<kind>-<index>-<incarnation>-<number>.jnl     turns and calls of tasks in flight, by who wrote them
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
    """One part: its shard, the incarnation that began it, and its number in that incarnation."""

    shard: int
    incarnation: int
    number: int

    def path(self, run_dir: Path, folder: str) -> Path:
        """Where the part's file in `DATA`, `REJECTED` or `INDEX` is."""
        suffix = ".idx" if folder == INDEX else ".jsonl"
        return run_dir / folder / f"part-{self.shard:03d}-{self.incarnation:04d}-{self.number:04d}{suffix}"

    @classmethod
    def parse(cls, path: Path) -> "PartName | None":
        """The part that a file belongs to, or None if it is no part's file."""
        match = _PART.fullmatch(path.name)
        return cls(int(match[1]), int(match[2]), int(match[3])) if match else None


def list_parts(run_dir: Path, folder: str) -> list[PartName]:
    """The parts that have a file in a folder, in order; none if there is no such folder."""
    directory = run_dir / folder
    paths = directory.iterdir() if directory.is_dir() else ()
    return sorted(name for name in map(PartName.parse, paths) if name is not None)


class SegmentName(NamedTuple):
    """One segment of the journal: the kind and slot (index) of who wrote it, its incarnation, a number."""

    kind: str
    slot: int
    incarnation: int
    number: int

    def path(self, run_dir: Path) -> Path:
        """Where the segment is."""
        kind, slot, incarnation, number = self
        return run_dir / JOURNAL / f"{kind}-{slot:03d}-{incarnation:04d}-{number:04d}.jnl"

    @classmethod
    def parse(cls, path: Path) -> "SegmentName | None":
        """The segment that a file is, or None if it is none."""
        match = _SEGMENT.fullmatch(path.name)
        return cls(match[1], int(match[2]), int(match[3]), int(match[4])) if match else None


def list_segments(run_dir: Path) -> list[SegmentName]:
    """The segments of the journal, in order; none if there is no such folder."""
    directory = run_dir / JOURNAL
    paths = directory.iterdir() if directory.is_dir() else ()
    return sorted(name for name in map(SegmentName.parse, paths) if name is not None)


def lock_path(run_dir: Path, shard: int) -> Path:
    """The lock of a shard."""
    return run_dir / LOCKS / f"shard-{shard:03d}.lock"
