"""Display the progress of a run: a live panel on a terminal, a line every few seconds elsewhere."""

from collections.abc import Generator
from contextlib import closing, contextmanager, suppress

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from peerloom.events import Hooks, MemberLost, Notice, Progress, RunFinished, RunStarted, Starting
from peerloom.observe.rates import ProgressRates
from peerloom.observe.words import agents_table, clock, count, duration, outcomes, plain

LINE_SECONDS = 5.0
REASON_CHARACTERS = 120  # the rest of the reason for a pause is only in the notice
_STYLES = {"warning": "yellow", "error": "bold red"}


class _Display(Hooks):
    """Base of both displays, which prints notices and lost members."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rates = ProgressRates()
        self._recipe = ""

    def run_started(self, event: RunStarted) -> None:
        """Store the recipe's name, and show that the members are starting."""
        self._recipe = event.recipe
        self.starting(Starting("starting the peers"))

    def notice(self, event: Notice) -> None:
        """Print the notice."""
        self._console.print(plain(event.text, _STYLES.get(event.level, "")), soft_wrap=True)

    def member_lost(self, event: MemberLost) -> None:
        """Print a warning that the member was lost."""
        self.notice(Notice("warning", f"{event.member} was lost ({event.why}); it is being replaced"))


class LineDisplay(_Display):
    """Display that prints a line every few seconds, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._due = LINE_SECONDS

    def starting(self, event: Starting) -> None:
        """Print the step."""
        self._console.print(plain(event.step), soft_wrap=True)

    def progress(self, event: Progress) -> None:
        """Print a line if one is due."""
        self._rates.add(event)
        if event.seconds >= self._due:
            self._due = event.seconds + LINE_SECONDS + event.seconds / 20  # less often in a long run
            self._console.print(plain(_line(event, self._rates)), soft_wrap=True)


class LiveDisplay(_Display):
    """Display of a panel that is redrawn with every snapshot and removed at the end."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        # Drawn with each snapshot, without a refresh thread; stdout is not redirected, it is for data.
        self._live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False)

    def starting(self, event: Starting) -> None:
        """Show the step in place of the panel."""
        self._draw(plain(f"{event.step}...", "dim"))

    def progress(self, event: Progress) -> None:
        """Draw the panel."""
        self._rates.add(event)
        self._draw(_panel(self._recipe, event, self._rates))

    def run_finished(self, event: RunFinished) -> None:
        """Remove the panel."""
        self.close()

    def close(self) -> None:
        """Remove the panel, and restore the terminal. May be called twice."""
        with suppress(OSError, ValueError):  # the terminal is gone
            self._live.stop()

    def _draw(self, content: RenderableType) -> None:
        self._live.start()
        self._live.update(content, refresh=True)


@contextmanager
def open_display(console: Console) -> Generator[LineDisplay | LiveDisplay]:
    """Yield the display for a console, and restore the terminal at the end."""
    if not console.is_terminal:
        yield LineDisplay(console)
        return
    with closing(LiveDisplay(console)) as display:
        yield display


def _done(event: Progress, rates: ProgressRates) -> str:
    if not event.total:
        return f"{count(rates.rows)} rows"
    return f"{count(rates.rows)}/{count(event.total)} rows, {rates.rows / event.total:.0%}"


def _figures(event: Progress, rates: ProgressRates) -> str:
    turns = sum(agent.turns for agent in event.agents.values())
    return (
        f"{count(turns)} turns, in flight {count(event.in_flight)}, "
        f"{count(rates.per_second.tokens)} tokens/s, {rates.per_second.calls:,.1f} calls/s; "
        f"{outcomes(event.outcomes)}"
    )


def _left(event: Progress, rates: ProgressRates) -> str:
    if event.paused or event.waiting:
        return "" if event.waiting else ", paused"
    return "" if rates.seconds_left is None else f", {duration(rates.seconds_left)} left"


def _waiting(event: Progress) -> str:
    """Return the service that the run waits for and the time of the next attempt; empty if there is none."""
    if not event.waiting or event.waiting_until is None:
        return ""
    return f"waiting until {clock(event.waiting_until)} {_short(event.waiting)}"


def _short(reason: str) -> str:
    return reason if len(reason) <= REASON_CHARACTERS else f"{reason[:REASON_CHARACTERS]}..."


def _line(event: Progress, rates: ProgressRates) -> str:
    reason = f" ({_short(event.paused)})" if event.paused else ""
    reason = f"; {_waiting(event)}" if event.waiting else reason
    done = f"{_done(event, rates)}{_left(event, rates)}{reason}"
    return f"{duration(event.seconds)}  {done}; {_figures(event, rates)}"


def _panel(recipe: str, event: Progress, rates: ProgressRates) -> Group:
    head = Table.grid(padding=(0, 2))
    bar = ProgressBar(total=event.total or None, completed=rates.rows, width=30, pulse=not event.total)
    elapsed = Text(f"{duration(event.seconds)}{_left(event, rates)}")
    head.add_row(plain(recipe, "bold"), bar, Text(_done(event, rates)), elapsed)
    reason = _waiting(event) or _short(event.paused)
    reason_line = [plain(reason, "yellow")] if reason else []
    return Group(head, *reason_line, plain(_figures(event, rates)), agents_table(event.agents))
