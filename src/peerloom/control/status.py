"""Collect the status of a run from its events, and return it as one JSON document."""

import time
from collections import deque
from typing import Any

from peerloom.events import (
    Hooks,
    MemberJoined,
    MemberLost,
    Notice,
    Progress,
    RunStarted,
    ViewChanged,
)
from peerloom.observe.rates import ProgressRates
from peerloom.runtime.driver.run import Run
from peerloom.runtime.settings import ADJUSTABLE

NOTICES = 10  # the number of last notices in a status


class StatusCollector(Hooks):
    """Hooks that collect the status of a run."""

    def __init__(self) -> None:
        self._recipe = ""
        self._view = 0
        self._members: dict[str, MemberJoined] = {}
        self._notices: deque[dict[str, Any]] = deque(maxlen=NOTICES)
        self._progress = Progress(0.0, None, 0, 0)
        self._rates = ProgressRates()

    def run_started(self, event: RunStarted) -> None:
        """Store the recipe's name."""
        self._recipe = event.recipe

    def view_changed(self, event: ViewChanged) -> None:
        """Store the number of the view."""
        self._view = event.number

    def member_joined(self, event: MemberJoined) -> None:
        """Add the member."""
        self._members[event.member] = event

    def member_lost(self, event: MemberLost) -> None:
        """Remove the member, and add a notice with the reason."""
        self._members.pop(event.member, None)
        self.notice(Notice("warning", f"{event.member} was lost ({event.why})"))

    def progress(self, event: Progress) -> None:
        """Store the latest snapshot."""
        self._progress = event
        self._rates.add(event)

    def notice(self, event: Notice) -> None:
        """Add the notice; only the last ones are kept."""
        self._notices.append({"time": round(time.time(), 3), "level": event.level, "text": event.text})

    def document(self, run: Run) -> dict[str, Any]:
        """Return the status."""
        progress, rates = self._progress, self._rates
        left = rates.seconds_left
        return {
            "state": "starting" if run.state == "running" and not self._view else run.state,
            "why": run.standing_still,
            "waiting": _waiting(run),
            "recipe": self._recipe,
            "session": run.session,
            "seconds": round(progress.seconds, 3),
            "total": progress.total,
            "committed": rates.rows,
            "in_flight": progress.in_flight,
            "turns": progress.turns,
            "outcomes": progress.outcomes,
            "rates": {
                "rows_per_second": round(rates.rows_per_second, 3),
                "calls_per_second": round(rates.calls_per_second, 3),
                "tokens_per_second": round(rates.tokens_per_second, 3),
                "seconds_left": None if left is None or run.standing_still else round(left),
            },
            "view": self._view,
            "members": [
                {"name": each.member, "node": each.node, "pid": each.pid} for each in self._members.values()
            ],
            "settings": {key: getattr(run.settings, key) for key in ADJUSTABLE},
            "notices": list(self._notices),
        }


def _waiting(run: Run) -> dict[str, Any] | None:
    """Return the service that refuses calls and the Unix time of the next attempt, if the run waits."""
    waiting = run.waiting
    if waiting is None:
        return None
    return {"service": waiting.service, "why": waiting.why, "until": round(waiting.until, 3)}
