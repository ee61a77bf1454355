"""A finished task becomes its row before it comes to its sink, so sinks only append bytes."""

import time

import msgspec

from peerloom.runtime.brief import Brief
from peerloom.services.secret import mask, mask_json
from peerloom.sink.rows import Row, encode, render
from peerloom.task import Task


def finish(task: Task, brief: Brief) -> bytes:
    """Encode the row of a task that has ended, with the secrets of the run masked."""
    row = render(task, brief.program.workflow, dict(brief.provenance), finished=time.time())
    return encode(_masked(row))


def _masked(row: Row) -> Row:
    line, reason = mask_json(row.line), mask(row.reason)
    if line is row.line and reason is row.reason:
        return row
    return msgspec.structs.replace(row, line=line, reason=reason)
