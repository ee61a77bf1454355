"""Check the result of a session, and describe its failures."""

from pathlib import Path
from shlex import quote
from typing import TypeVar, cast

from peerloom.errors import EngineError
from peerloom.events import Notice
from peerloom.sink.totals import Totals
from peerloom.task import FAILED

AnyError = TypeVar("AnyError", bound=BaseException)


def check_complete(totals: Totals, tasks: int | None, run_dir: Path) -> None:
    """Check that an uninterrupted run has a row for every task, as the protocol guarantees.

    Raises:
        EngineError: if rows are missing.
    """
    if tasks is not None and totals.admitted != tasks:
        raise EngineError(
            f"{totals.admitted} rows are committed of {tasks} tasks. This is a defect of Peerloom, "
            f"unless the input was changed meanwhile; the log is in {run_dir}"
        )


def failures(totals: Totals, run_dir: Path) -> Notice | None:
    """Return a notice about failed tasks, or None if there are none."""
    failed = totals.outcomes.get(FAILED, 0)
    if not failed:
        return None
    why = ", ".join(f"{reason} {count}" for reason, count in sorted(totals.reasons.items()))
    text = f"{failed} of {totals.admitted} tasks failed ({why}); each row's detail says why: "
    text += str(run_dir / "rejected")
    again = f"peerloom resume {quote(str(run_dir))} --retry-failed"
    return Notice("warning", f"{text}; {again} (in Python retry_failed=True) does them again")


def first_error(group: BaseExceptionGroup[AnyError]) -> AnyError:
    """Return the first error in nested groups; the others are its consequences."""
    error = group.exceptions[0]
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[AnyError]", error).exceptions[0]
    return error
