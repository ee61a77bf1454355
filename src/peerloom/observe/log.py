"""Write the events of a run to the run directory's `log.jsonl`."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from peerloom.events import Hooks, MemberLost, Notice, Progress, RunFinished
from peerloom.services.secret import masked_value

PROGRESS_SECONDS = 30.0

Write = Callable[..., None]


class LogHooks(Hooks):
    """Hooks that log every event, and a snapshot of the progress every `PROGRESS_SECONDS`.

    Args:
        write: a function that is called as `write(level, event, **fields)`, see `RunDir.log`.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._due = 0.0

    def handle(self, name: str, event: Any) -> None:
        """Log the event; of the snapshots, those that are due."""
        level = "info"
        match event:
            case Notice():
                self._write(event.level, name, text=event.text)
                return
            case Progress():
                if event.seconds < self._due:
                    return
                self._due = event.seconds + PROGRESS_SECONDS
            case MemberLost():
                level = "warning"
            case RunFinished(how="failed"):
                level = "error"
            case _:
                pass
        self._write(level, name, **masked_value(asdict(event)))
