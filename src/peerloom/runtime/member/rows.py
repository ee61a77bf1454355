"""Render the row of a task that has ended."""

import time
from collections.abc import Sequence
from functools import lru_cache

import msgspec
import orjson

from peerloom.runtime.member.conversations import conversations, offered_tools
from peerloom.runtime.member.spec import MemberSpec
from peerloom.services.secret import mask, mask_bytes, masked_value
from peerloom.sink.rows import Row, encode, render
from peerloom.stored import from_stored, to_stored
from peerloom.task import Task, Turn


def finish(task: Task, spec: MemberSpec) -> bytes:
    """Encode the row of a task that has ended, with the secrets of the run masked."""
    full = spec.settings.record.requests == "full"
    row = _render(task, spec, full=full)
    masked = _masked(row)
    if masked is not row and not full:  # its requests may refer to texts that are masked
        masked = _masked(_render(task, spec, full=True))
    return encode(masked)


def _render(task: Task, spec: MemberSpec, *, full: bool) -> Row:
    turns = task.decode_turns()
    return render(
        task,
        turns,
        conversations(task, turns),
        offered_tools(turns),
        dict(spec.provenance),
        finished=time.time(),
        full_requests=full,
        programs=_programs(turns, spec.programs) if len(spec.programs) > 1 else (),
    )


def _programs(turns: Sequence[Turn], programs: tuple[tuple[int, str], ...]) -> list[str]:
    """Return the version of the program that made each turn, empty for the newest one."""
    found: list[str] = []
    version = ""
    for turn in reversed(turns):
        if turn.execution is not None:  # otherwise it was made together with the one after it
            version = _version_of(turn.execution.member, programs)
        found.append("" if version == programs[-1][1] else version)
    return found[::-1]


@lru_cache(1024)
def _version_of(member: str, programs: tuple[tuple[int, str], ...]) -> str:
    """Return the version in use when a member started, which its name says."""
    incarnation = int(member.rpartition(".")[2])
    return next(digest for first, digest in reversed(programs) if first <= incarnation)


def _masked(row: Row) -> Row:
    line, reason = mask_bytes(row.line), mask(row.reason)
    if line is row.line and reason is row.reason:
        return row
    if line is not row.line:  # each value is masked by itself, so that JSON text in the row stays valid
        line = orjson.dumps(to_stored(masked_value(from_stored(orjson.loads(row.line)))))
    return msgspec.structs.replace(row, line=line, reason=reason)
