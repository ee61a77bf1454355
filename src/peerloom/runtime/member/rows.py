"""Render the row of a task that has ended."""

import time
from typing import Any, cast

import msgspec

from peerloom.runtime.member.spec import MemberSpec
from peerloom.runtime.steps.error_counts import ErrorCounts
from peerloom.runtime.steps.turns import check_exact
from peerloom.services.secret import mask, mask_json
from peerloom.sink.rows import Row, encode, render
from peerloom.task import COMPLETED, Task
from peerloom.workflow import Workflow


def finish(task: Task, spec: MemberSpec, errors: ErrorCounts) -> bytes:
    """Encode the row of a task that has ended, with the secrets of the run masked.

    A task that completed fails if the workflow's `opening` raises, or returns anything but messages.
    """
    opening: list[dict[str, Any]] = []
    try:
        opening = _opening(spec.program.workflow, task)
    except BaseException as error:
        if task.end is not None and task.end.outcome == COMPLETED:  # else the row has an error already
            task = task.with_next(errors.classify(error, "workflow_error", task))
    return encode(_masked(render(task, opening, dict(spec.provenance), finished=time.time())))


def _opening(workflow: Workflow, task: Task) -> list[dict[str, Any]]:
    opened: Any = workflow.opening(task)
    if not isinstance(opened, list | tuple):
        raise TypeError(f"opening() returned a {type(opened).__name__}; it must return a list of messages")
    opening = list(cast("list[Any]", opened))
    for number, message in enumerate(opening):
        if not isinstance(message, dict):
            raise TypeError(f"opening()[{number}]: a {type(message).__name__}; it must be a dict")
    check_exact(opening, "opening()")
    return opening


def _masked(row: Row) -> Row:
    line, reason = mask_json(row.line), mask(row.reason)
    if line is row.line and reason is row.reason:
        return row
    return msgspec.structs.replace(row, line=line, reason=reason)
