"""Describe exceptions of agents and workflows as the end of their task.

Nothing here raises, even if the `str`, type, or attributes of an exception do.
"""

import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from peerloom.errors import TaskError
from peerloom.task import FAILED, FILTERED, TRUNCATED, End, Fault
from peerloom.values import escaped

DETAIL_CHARACTERS = 2_000

Value = TypeVar("Value")

_ENDS_A_TASK = (FAILED, FILTERED, TRUNCATED)
_LIBRARIES = tuple(
    f"{Path(folder).resolve()}/"
    for folder in (
        *(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        Path(__file__).parents[1],
    )
)


def classify(error: BaseException, reason: str, role: str = "") -> End:
    """Describe how an exception ends a task; `reason` is for exceptions that do not name one."""
    message = message_of(error)
    if issubclass(type(error), TaskError):  # isinstance would call the `__class__` of the exception
        named = _outcome_and_reason(error)
        if named is not None:
            return End(*named, detail=message, error=_fault(error, role, message))
        message = (
            f"{message}: a TaskError needs an outcome of {', '.join(_ENDS_A_TASK)}, and a reason that is a "
            "line of text"
        )
    fault = _fault(error, role, message)
    where = f" ({Path(fault.file).name}:{fault.line})" if fault.file else ""
    detail = ": ".join(part for part in (role, fault.type, message) if part)
    return End(FAILED, reason, detail=detail[:DETAIL_CHARACTERS] + where, error=fault)


def message_of(error: BaseException) -> str:
    """Return the message of an exception, shortened and without characters that cannot be encoded."""
    return _attempt(lambda: _clean(str(error)), "(its message could not be read)")


def is_reason(reason: object) -> bool:
    """Return whether a value can be the reason of a row: one line of printable text."""
    return isinstance(reason, str) and (not reason or reason.isprintable()) and len(reason) <= 200


def _outcome_and_reason(error: BaseException) -> tuple[str, str] | None:
    named: Any = error
    outcome, reason = _attempt(lambda: (named.outcome, named.reason), ("", ""))
    known = isinstance(outcome, str) and outcome in _ENDS_A_TASK
    return (outcome, reason) if known and is_reason(reason) and reason else None


def _fault(error: BaseException, role: str, message: str) -> Fault:
    kind = _clean(str(type.__dict__["__name__"].__get__(type(error))))
    file, line = _attempt(lambda: _place(_traceback_of(error)), ("", 0))
    if not file and issubclass(type(error), RuntimeError):  # Python wraps a StopIteration in one
        file, line = _attempt(lambda: _place(_traceback_of(error.__cause__)), ("", 0))
    return Fault(role, kind, message, file, line)


def _traceback_of(error: BaseException | None) -> TracebackType | None:
    """Return the traceback of an exception, even if its class overrides the attribute."""
    return None if error is None else BaseException.__dict__["__traceback__"].__get__(error)


def _place(traceback: TracebackType | None) -> tuple[str, int]:
    """Return the innermost line of a traceback that is in neither a library nor Peerloom."""
    found = "", 0
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if not file.startswith((*_LIBRARIES, "<frozen ")) and "/site-packages/" not in file:
            found = file, traceback.tb_lineno or 0
        traceback = traceback.tb_next
    return _relative(found[0]), found[1]


def _relative(file: str) -> str:
    """Return a path relative to the working directory, or to the home directory as `~`."""
    for folder, prefix in ((Path.cwd(), ""), (Path.home(), "~/")):
        if file.startswith(f"{folder}/"):
            return _clean(prefix + file[len(str(folder)) + 1 :])
    return _clean(file)


def _clean(text: str) -> str:
    return escaped(str.__str__(text[:DETAIL_CHARACTERS]))


def _attempt(read: Callable[[], Value], otherwise: Value) -> Value:
    try:
        return read()
    except BaseException:
        return otherwise
