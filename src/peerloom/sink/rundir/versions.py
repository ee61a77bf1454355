"""Keep the versions of a run's program in the run directory, and show the differences between two.

Each is a file `.peerloom/program/<digest>.json` with the description of the workflow, of each agent, and of
each function, so that a later session can show the changes.
"""

import difflib
import hashlib
from pathlib import Path
from typing import Any

import msgspec
import orjson

from peerloom.sink.files import write_atomically
from peerloom.sink.layout import PROGRAM
from peerloom.terminal.printable import printable

DIGITS = 12
MAX_DIFF = 200
CONTEXT = 2


class ProgramVersion(msgspec.Struct, frozen=True):
    """The description of a program.

    `parts` are the texts of the workflow, each agent, and each function, by name. `uncovered` names the
    values that they do not describe, and `packages` the installed packages of which they have only names.
    `prompts` are the digests of the templates of each role.
    """

    parts: dict[str, str] = {}
    uncovered: list[str] = []
    packages: list[str] = []
    prompts: dict[str, str] = {}

    @property
    def digest(self) -> str:
        """The digest of all parts."""
        return digest_of(self.parts)


def digest_of(value: Any) -> str:
    """Return a short digest of a JSON value, the same in every process."""
    encoded = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(encoded).hexdigest()[:DIGITS]


def write_version(run_dir: Path, version: ProgramVersion) -> None:
    """Write a version to the run directory, unless it is there."""
    path = _path(run_dir, version.digest)
    if not path.exists():
        write_atomically(path, orjson.dumps(version, default=_plain, option=orjson.OPT_INDENT_2))


def read_version(run_dir: Path, digest: str) -> ProgramVersion | None:
    """Return a version that the run directory keeps; None if its file is missing or damaged."""
    try:
        version = msgspec.json.decode(_path(run_dir, digest).read_bytes(), type=ProgramVersion)
    except (OSError, msgspec.MsgspecError):
        return None
    return version if version.digest == digest else None


def program_changes(run_dir: Path, was: str, now: ProgramVersion) -> list[str]:
    """Return the lines that differ from an earlier version, as a unified diff of each part."""
    found = [f"program: was {was}, now {now.digest}"]
    earlier = read_version(run_dir, was)
    if earlier is None:
        return [*found, f"{_path(run_dir, was)} cannot be read, so the changes cannot be shown"]
    for name in dict.fromkeys((*earlier.parts, *now.parts)):
        before, after = (each.parts.get(name, "").splitlines() for each in (earlier, now))
        names = f"{name} (was)", f"{name} (now)"
        lines = difflib.unified_diff(before, after, *names, lineterm="", n=CONTEXT)
        found += [printable(line).replace("\n", " ") for line in lines]
    if len(found) > MAX_DIFF:
        found[MAX_DIFF:] = [f"... and {len(found) - MAX_DIFF} more lines"]
    return found


def _path(run_dir: Path, digest: str) -> Path:
    return run_dir / PROGRAM / f"{digest}.json"


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value)
