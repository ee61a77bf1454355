"""Define the events of a run, one frozen class for each, and the hooks that receive them.

Observers (display, metrics, traces, logs) are subclasses of `Hooks`. The runtime calls them and never depends
on their effects.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Starting:
    """A startup step before the first task; `step` describes it, e.g. `starting Ray`."""

    step: str


@dataclass(frozen=True, slots=True)
class RunStarted:
    """Model and engine are up; the members are started next."""

    run_dir: str
    recipe: str


@dataclass(frozen=True, slots=True)
class ViewChanged:
    """A process joined or was lost; `members` are the names of the current ones."""

    number: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MemberJoined:
    """A process is up: its member name, its node (empty for this process) and its process id."""

    member: str
    node: str
    pid: int


@dataclass(frozen=True, slots=True)
class MemberLost:
    """A process was found dead, or suspected and killed."""

    member: str
    why: str


@dataclass(frozen=True, slots=True)
class AgentTotals:
    """The totals of one role so far; `seconds` is the sum of the durations of its turns."""

    turns: int = 0
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Progress:
    """A snapshot of the whole run, a few times a second. Token counts include unfinished tasks.

    `seconds` and `outcomes` include earlier sessions, whose part is `earlier_seconds` and `earlier_rows`;
    `hops` and `agents` are those of this session.
    `paused` is the reason why no new task begins, empty if tasks begin. `turns` is the number of turns that
    are running now. `waiting` describes the service that refuses every call, with its message, and
    `waiting_until` is the Unix time of the next attempt; empty and None if there is no such service.
    """

    seconds: float
    total: int | None
    admitted: int
    in_flight: int
    outcomes: dict[str, int] = field(default_factory=dict[str, int])
    hops: int = 0
    agents: dict[str, AgentTotals] = field(default_factory=dict[str, AgentTotals])
    earlier_rows: int = 0
    earlier_seconds: float = 0.0
    paused: str = ""
    turns: int = 0
    waiting: str = ""
    waiting_until: float | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """A message to the user. `level` is one of `info`, `warning`, `error`."""

    level: str
    text: str


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The run has ended and written its summary; `how` is `finished`, `drained`, `suspended` or `failed`."""

    how: str
    run_dir: str


class Hooks:
    """Base of the observers of a run. Every method but `handle` does nothing until overridden."""

    def handle(self, name: str, event: Any) -> None:
        """Call the method of this name. Override this to handle all events in one place."""
        getattr(self, name)(event)

    def starting(self, event: Starting) -> None:
        """Handle the begin of a startup step, which ends the previous one."""

    def run_started(self, event: RunStarted) -> None:
        """Handle the start of the run."""

    def view_changed(self, event: ViewChanged) -> None:
        """Handle a change of the membership."""

    def member_joined(self, event: MemberJoined) -> None:
        """Handle the start of a process."""

    def member_lost(self, event: MemberLost) -> None:
        """Handle the loss of a process."""

    def progress(self, event: Progress) -> None:
        """Handle a regular snapshot."""

    def notice(self, event: Notice) -> None:
        """Handle a message to the user."""

    def run_finished(self, event: RunFinished) -> None:
        """Handle the end of the run."""
