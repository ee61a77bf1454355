"""What happens in a run, one frozen class per event, and the hooks that hear of it.

Whatever only watches (display, metrics, traces, logs) is a subclass of `Hooks`; the runtime calls it
and never depends on what it does.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Starting:
    """A step before the first task has begun; `step` says which, e.g. `starting Ray`."""

    step: str


@dataclass(frozen=True, slots=True)
class RunStarted:
    """Model and engine are up; the members are started next."""

    run_dir: str
    recipe: str


@dataclass(frozen=True, slots=True)
class ViewChanged:
    """A process joined or was lost; `members` are the names of those there are now."""

    number: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MemberJoined:
    """A process is up: the member it is, the node it runs on (empty: this process), its process id."""

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
    """What one role has done so far; `seconds` is the time its turns took, summed."""

    turns: int = 0
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Progress:
    """A snapshot of the whole run, a few times a second. Token counts include unfinished tasks.

    `seconds` and `outcomes` count what earlier sessions did, `earlier_seconds` and `earlier_rows` of it;
    hops and agents are those of this session.
    `paused` says why nothing new begins; empty if it does. `turns` are under way at this moment.
    `waiting` names the service that refuses every call, in its words, and `waiting_until` is the Unix time of
    the next attempt; empty and None if there is no such service.
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
    """Something a person should read. `level` is one of `info`, `warning`, `error`."""

    level: str
    text: str


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The run is over and its summary is written. `how` is `finished`, `drained`, `suspended` or `failed`."""

    how: str
    run_dir: str


class Hooks:
    """Base of everything that watches a run. Every method does nothing until overridden."""

    def starting(self, event: Starting) -> None:
        """A step of the start begins, and ends the one before."""

    def run_started(self, event: RunStarted) -> None:
        """The run begins."""

    def view_changed(self, event: ViewChanged) -> None:
        """The membership changed."""

    def member_joined(self, event: MemberJoined) -> None:
        """A process is up."""

    def member_lost(self, event: MemberLost) -> None:
        """A process was lost."""

    def progress(self, event: Progress) -> None:
        """A regular snapshot."""

    def notice(self, event: Notice) -> None:
        """Something to read."""

    def run_finished(self, event: RunFinished) -> None:
        """The run is over."""
