"""Format figures and untrusted text for a terminal."""

import time
from collections.abc import Iterable, Mapping

from rich.table import Table
from rich.text import Text

from peerloom.events import AgentTotals
from peerloom.terminal.printable import printable


def plain(text: str, style: str = "") -> Text:
    """Return text from a row, a model or a log without markup and control characters."""
    return Text(printable(text), style)


def clock(seconds: float) -> str:
    """Return a Unix time as `14:03:20`, in this machine's time zone."""
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def duration(seconds: float) -> str:
    """Return a duration as `0.4 s`, `0:12`, `12:05` or `3:00:00`."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def count(number: float) -> str:
    """Return a number as `1,234`."""
    return f"{number:,.0f}"


def outcomes(counts: Mapping[str, int]) -> str:
    """Return counts as `completed 118, failed 2`."""
    return ", ".join(f"{name} {count(number)}" for name, number in counts.items() if number) or "none"


def headed_table(*texts: str, numbers: Iterable[str] = ()) -> Table:
    """Return a table with these columns, of texts and of numbers."""
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for name in texts:
        table.add_column(name)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def agents_table(agents: Mapping[str, AgentTotals], usd: Mapping[str, float] | None = None) -> Table:
    """Return a table with a line for each role, and its cost if `usd` is given."""
    names = ["turns", "calls", "prompt", "completion", "cached", "hits", "s/turn"]
    table = headed_table("agent", numbers=[*names, "USD"] if usd else names)
    for role, agent in agents.items():
        figures = (
            agent.turns,
            agent.calls,
            agent.prompt_tokens,
            agent.completion_tokens,
            agent.cached_tokens,
        )
        hits = agent.cached_tokens / agent.prompt_tokens if agent.prompt_tokens else 0.0
        mean = agent.seconds / agent.turns if agent.turns else 0.0
        cells = [*(count(figure) for figure in figures), f"{hits:.0%}", f"{mean:.2f}"]
        if usd:
            cells.append(f"{usd[role]:,.4f}")
        table.add_row(plain(role), *cells)
    return table
