"""A finished task becomes its row before it comes to its sink, so sinks only append bytes."""

import time

from peerloom.runtime.brief import Brief
from peerloom.sink.rows import encode, render
from peerloom.task import Task


def finish(task: Task, brief: Brief) -> bytes:
    """The encoded row of a task that has ended."""
    return encode(render(task, brief.program.workflow, dict(brief.provenance), finished=time.time()))
