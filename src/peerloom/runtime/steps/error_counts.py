"""Count the errors of agents and workflows, in each member and over the session.

A turn that is repeated after a crash counts again.
"""

import traceback
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from peerloom.errors import TaskError
from peerloom.runtime.steps.faults import classify
from peerloom.services.secret import mask, masked_value
from peerloom.task import FAILED, End, Task
from peerloom.values import escaped

MAX_ERRORS = 100
"""The most distinct errors that a member counts and the log has; others are in their rows only."""

TRACEBACK_CHARACTERS = 4_000
MESSAGE_CHARACTERS = 300
SUMMARY_ERRORS = 3
_CUT = "\n[...]\n"

Key = tuple[str, str, str, str, int]


class ErrorCount(msgspec.Struct, array_like=True):
    """A distinct error: its first message, row, and traceback, and its count.

    A `TaskError` that was not raised in the user's code is distinguished by its role and reason only, and has
    no traceback.
    """

    role: str
    reason: str
    type: str
    file: str
    line: int
    message: str
    example: str
    count: int = 0
    traceback: str = ""

    @property
    def key(self) -> Key:
        """The fields that distinguish errors."""
        return self.role, self.reason, self.type, self.file, self.line


class ErrorCounts:
    """The errors of one member."""

    def __init__(self) -> None:
        self._errors: dict[Key, ErrorCount] = {}
        self._read: dict[Key, int] = {}

    def classify(self, error: BaseException, reason: str, task: Task, role: str = "") -> End:
        """Return the end of a task, as `faults.classify` does, and count an error that makes it fail."""
        end = classify(error, reason, role)
        if end.outcome == FAILED:
            self._count(error, end, task, role)
        return end

    def read(self) -> list[ErrorCount]:
        """Return the errors whose count has changed since the last call, with the traceback of new ones."""
        found: list[ErrorCount] = []
        for key, error in self._errors.items():
            before = self._read.get(key, 0)
            if error.count != before:
                found.append(msgspec.structs.replace(error, traceback="") if before else error)
                self._read[key] = error.count
        return found

    def _count(self, error: BaseException, end: End, task: Task, role: str) -> None:
        fault = end.error
        assert fault is not None
        raised_here = issubclass(type(error), TaskError) and not fault.file  # by Peerloom itself
        kind, file, line = ("TaskError", "", 0) if raised_here else (fault.type, fault.file, fault.line)
        key = role, end.reason, kind, file, line
        known = self._errors.get(key)
        if known is None:
            if len(self._errors) >= MAX_ERRORS:
                return
            message = mask(fault.message)[:MESSAGE_CHARACTERS]
            shown = "" if raised_here else traceback_of(error)
            known = self._errors[key] = ErrorCount(*key, message, str(task.id), 0, shown)
        known.count += 1


class SessionErrors:
    """The errors of all members, lost ones included."""

    def __init__(self) -> None:
        self._members: dict[str, dict[Key, ErrorCount]] = {}

    def update(self, name: str, errors: Iterable[ErrorCount]) -> None:
        """Update the counts of a member."""
        known = self._members.setdefault(name, {})
        for error in errors:
            before = known.get(error.key)
            known[error.key] = error
            if before is not None and not error.traceback:
                error.traceback = before.traceback

    def report(self, log: Callable[..., None]) -> list[dict[str, Any]]:
        """Log each distinct error once, and return the most common ones without their tracebacks."""
        merged: dict[Key, ErrorCount] = {}
        for errors in self._members.values():
            for key, error in errors.items():
                known = merged.setdefault(key, msgspec.structs.replace(error, count=0))
                known.count += error.count
                known.traceback = known.traceback or error.traceback
        common = sorted(merged.values(), key=lambda each: -each.count)[:MAX_ERRORS]
        entries = [_entry(error) for error in common]
        for entry, shown in entries:
            log("error", "task_error", **entry, **({"traceback": shown} if shown else {}))
        return [entry for entry, _ in entries[:SUMMARY_ERRORS]]


def traceback_of(error: BaseException) -> str:
    """Return the traceback of an exception, without secrets and shortened in the middle. Never raises."""
    try:
        text = mask(escaped("".join(traceback.format_exception(error))))
    except BaseException:
        return "(its traceback could not be read)"
    if len(text) <= TRACEBACK_CHARACTERS:
        return text
    half = (TRACEBACK_CHARACTERS - len(_CUT)) // 2
    return text[:half] + _CUT + text[-half:]


def _entry(error: ErrorCount) -> tuple[dict[str, Any], str]:
    """Return the summary's entry of an error, and its traceback."""
    entry = masked_value(msgspec.structs.asdict(error))
    return entry, entry.pop("traceback")
