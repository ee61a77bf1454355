"""Write the events of a run to the run directory's `log.jsonl`."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from peerloom.events import (
    Hooks,
    MemberJoined,
    MemberLost,
    Notice,
    Progress,
    RunFinished,
    RunStarted,
    Starting,
    ViewChanged,
)
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

    def starting(self, event: Starting) -> None:
        """Log the event."""
        self._log("info", "starting", event)

    def run_started(self, event: RunStarted) -> None:
        """Log the event."""
        self._log("info", "run_started", event)

    def view_changed(self, event: ViewChanged) -> None:
        """Log the event."""
        self._log("info", "view_changed", event)

    def member_joined(self, event: MemberJoined) -> None:
        """Log the event."""
        self._log("info", "member_joined", event)

    def member_lost(self, event: MemberLost) -> None:
        """Log the event."""
        self._log("warning", "member_lost", event)

    def progress(self, event: Progress) -> None:
        """Log the snapshot if one is due."""
        if event.seconds >= self._due:
            self._due = event.seconds + PROGRESS_SECONDS
            self._log("info", "progress", event)

    def notice(self, event: Notice) -> None:
        """Log the notice at its own level."""
        self._write(event.level, "notice", text=event.text)

    def run_finished(self, event: RunFinished) -> None:
        """Log the event."""
        self._log("error" if event.how == "failed" else "info", "run_finished", event)

    def _log(self, level: str, name: str, event: Any) -> None:
        self._write(level, name, **masked_value(asdict(event)))
