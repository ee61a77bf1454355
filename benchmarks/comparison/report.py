"""The results of a whole run as Markdown, with plots and the same figures as JSON beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import orjson

from benchmarks.comparison.case import Case, Figures, Found, Outcome
from benchmarks.comparison.install import installed
from benchmarks.comparison.peers import PEERS
from benchmarks.comparison.plot import bars
from benchmarks.comparison.rows import Row
from benchmarks.workloads import COMPARED
from peerloom.errors import ConfigError
from peerloom.sink.files import write_atomically

COLUMNS = {
    "tasks_per_second": "tasks/s",
    "hops_per_second": "hops/s",
    "calls_per_second": "calls/s",
    "tokens_per_second": "tokens/s",
    "share_of_ideal": "share of ideal",
    "cpu_seconds_per_1000_hops": "CPU s / 1,000 hops",
    "cpu_seconds_per_1000_calls": "CPU s / 1,000 calls",
    "peak_megabytes": "peak MiB",
    "loopback_bytes_per_task": "bytes between processes / task",
    "start_seconds": "s to start",
}
PLOTTED = {"share_of_ideal": "share of the ideal calls/s", "hops_per_second": "hops/s"}


@dataclass
class Results:
    """The results of a run so far."""

    machine: Mapping[str, str]
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    rows: list[Row] = field(default_factory=list[Row])
    outcomes: list[tuple[Case, Outcome]] = field(default_factory=list[tuple[Case, Outcome]])

    def as_json(self) -> dict[str, Any]:
        """Return everything, each run of each side included."""
        return {
            "machine": dict(self.machine),
            "versions": dict(self.versions),
            "rows": [row.as_json() for row in self.rows],
            "cases": {
                case.name: {
                    system: {"runs": found.runs, "reason": found.reason} for system, found in outcome.items()
                }
                for case, outcome in self.outcomes
            },
        }


class _Kept(msgspec.Struct):
    """The part of the results' JSON that is read again."""

    cases: dict[str, Outcome]


def measured_before(path: Path) -> dict[str, Outcome]:
    """Read the outcomes of the results at `path`, by case; empty if there are none.

    Raises:
        ConfigError: if they cannot be read.
    """
    data = path.with_suffix(".json")
    try:
        return msgspec.json.decode(data.read_bytes(), type=_Kept).cases
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"{data} cannot be read again ({error}): measure without --keep") from error


def write(results: Results, path: Path, command: str) -> None:
    """Write the results to `path`, and beside it the same as JSON and the plots."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plots = _plots(results)
    for name, svg in plots.items():
        write_atomically(path.parent / f"{path.stem}-{name}.svg", svg.encode())
    data = orjson.dumps(results.as_json(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    write_atomically(path.with_suffix(".json"), data)
    text = markdown(results, [f"{path.stem}-{name}.svg" for name in plots], command)
    write_atomically(path, text.encode())


def markdown(results: Results, plots: Sequence[str], command: str) -> str:
    """Return the results as a Markdown document."""
    kept = " Cases that it did not measure were kept from earlier runs." if "--keep" in command else ""
    parts = [
        "# Results",
        f"Made by `{command}`: figures of this machine, medians with the least and the most.{kept}",
        *(f"- {name}: {value}" for name, value in results.machine.items()),
        "",
        _table(results.rows),
        *(f"![{name}]({name})" for name in plots),
        *_cases(results),
        "## The peers",
        _peers(results),
    ]
    return "\n\n".join("\n".join(group) for group in _grouped(parts)) + "\n"


def _grouped(parts: Sequence[str]) -> list[list[str]]:
    """Group the lines of each list, and leave all else apart."""
    groups: list[list[str]] = []
    for part in parts:
        if part.startswith("- ") and groups and groups[-1][-1].startswith("- "):
            groups[-1].append(part)
        elif part:
            groups.append([part])
    return groups


def _table(rows: Sequence[Row]) -> str:
    head = ("figure", "Peerloom", "peer", "of the peer", "ratio", "to reach", "holds", "")
    return _markdown_table(head, [cells(row) for row in rows])


def cells(row: Row) -> tuple[str, ...]:
    """Format a row as the cells of the table."""
    value = number(row.value)
    if row.spread is not None:
        value += f" ({number(row.spread[0])} to {number(row.spread[1])})"
    ratio = "" if row.ratio is None else f"{number(row.ratio)}x"
    holds = {True: "yes", False: "**no**", None: ""}[row.holds]
    return (row.figure, value, row.peer, number(row.peer_value), ratio, row.reach.text, holds, row.note)


def number(value: float | None) -> str:
    """Format a number with three significant digits, large ones without a fraction."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:,.3g}"


def _cases(results: Results) -> list[str]:
    parts: list[str] = []
    for case, outcome in results.outcomes:
        if case.shown:
            parts += [f"## {case.name}", _systems(outcome)]
    return parts


def _systems(outcome: Outcome) -> str:
    medians = {system: found.medians() for system, found in outcome.items() if not found.reason}
    keys = [key for key in COLUMNS if any(key in figures for figures in medians.values())]
    rows: list[tuple[str, ...]] = []
    for system, found in outcome.items():
        figures = medians.get(system, {})
        rows.append((system, *(number(figures.get(key)) for key in keys), _runs(found, figures)))
    return _markdown_table(("system", *(COLUMNS[key] for key in keys), "runs"), rows)


def _runs(found: Found, figures: Figures) -> str:
    if found.reason:
        return f"not measured: {found.reason}"
    stopped = figures.get("stopped_after")
    return f"{len(found.runs)}" + (f", stopped after {stopped:,.0f} s" if stopped is not None else "")


def _peers(results: Results) -> str:
    rows: list[tuple[str, ...]] = []
    for name, peer in PEERS.items():
        took = installed(peer)
        size = f"{took['megabytes']:,} MB in {took['seconds']:,.0f} s" if took else ""  # type: ignore[str-format]
        gaps = "; ".join(f"{work}: {peer.reason(work)}" for work in COMPARED if peer.reason(work))
        works = ", ".join(sorted(peer.works))
        rows.append((peer.title, results.versions.get(name, ""), works, gaps, size))
    return _markdown_table(("peer", "versions", "measured on", "not on, since", "installed"), rows)


def _plots(results: Results) -> dict[str, str]:
    """Draw a plot for each figure that is worth one, over the cases that have it."""
    plots: dict[str, str] = {}
    for key, title in PLOTTED.items():
        cases = [
            (case.name, outcome)
            for case, outcome in results.outcomes
            if case.shown and any(found.get(key) is not None for found in outcome.values())
        ]
        systems = list(dict.fromkeys(name for _, outcome in cases for name in outcome))
        series = {
            name: [outcome[name].get(key) if name in outcome else None for _, outcome in cases]
            for name in systems
        }
        series = {
            name: values for name, values in series.items() if any(value is not None for value in values)
        }
        if series:
            plots[key.replace("_", "-")] = bars(title, [name for name, _ in cases], series)
    return plots


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)
