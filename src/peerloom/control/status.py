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
from peerloom.runtime.driver.control import RunControl
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

    def document(self, run: RunControl) -> dict[str, Any]:
        """Return the status."""
        progress, rates = self._progress, self._rates
        left, waiting = rates.seconds_left, run.waiting
        return {
            "state": "starting" if run.state == "running" and not self._view else run.state,
            "why": run.stalled,
            "waiting": waiting
            and {
                "service": waiting.service,
                "why": waiting.why,
                "until": round(waiting.until, 3),  # the Unix time of the next attempt
            },
            "recipe": self._recipe,
            "session": run.session.number,
            "seconds": round(progress.seconds, 3),
            "total": progress.total,
            "committed": rates.rows,
            "in_flight": progress.in_flight,
            "turns": progress.turns,
            "outcomes": progress.outcomes,
            "rates": {
                **{f"{name}_per_second": round(rate, 3) for name, rate in rates.per_second._asdict().items()},
                "seconds_left": None if left is None or run.stalled else round(left),
            },
            "view": self._view,
            "members": [
                {"name": each.member, "node": each.node, "pid": each.pid} for each in self._members.values()
            ],
            "settings": {key: getattr(run.settings, key) for key in ADJUSTABLE},
            "notices": list(self._notices),
        }
